//! Which module names which, and where such names go round in a circle.
//!
//! Circles are looked for among the children of each module: whatever lies in a child counts
//! as the child. A module and its own children may name each other.

use std::collections::{BTreeMap, BTreeSet};

/// A module by its path from the crate's root, without the root itself.
type Path = Vec<String>;

/// The modules of one crate.
pub(crate) struct Modules {
    /// Each with the paths that its code names, resolved to modules.
    named: BTreeMap<Path, BTreeSet<Path>>,
}

impl Modules {
    /// Reads the modules of a crate: names of files relative to the crate's root, and texts.
    pub(crate) fn new(files: &[(String, String)]) -> Self {
        let known: BTreeSet<Path> = files.iter().map(|(name, _)| module_of(name)).collect();
        let mut named: BTreeMap<Path, BTreeSet<Path>> = BTreeMap::new();
        for (name, text) in files {
            let own = module_of(name);
            let all = named.entry(own.clone()).or_default();
            all.extend(
                paths(text)
                    .iter()
                    .filter_map(|it| resolve(it, &own, &known)),
            );
        }
        Self { named }
    }

    /// The circles, as the siblings of each: `["http::api", "http::page"]`.
    pub(crate) fn cycles(&self) -> Vec<Vec<String>> {
        let parents: BTreeSet<&[String]> = self
            .named
            .keys()
            .flat_map(|it| (0..it.len()).map(|end| &it[..end]))
            .collect();
        let circles = parents.into_iter().flat_map(|parent| {
            let edges = self.edges_among_children(parent);
            let names = move |it: BTreeSet<&str>| {
                let full = |name: &str| [parent, &[name.to_owned()]].concat().join("::");
                it.into_iter().map(full).collect::<Vec<_>>()
            };
            circles(&edges).into_iter().map(names).collect::<Vec<_>>()
        });
        circles.collect()
    }

    fn edges_among_children(&self, parent: &[String]) -> BTreeMap<&str, BTreeSet<&str>> {
        let child = |path: &'_ Path| -> Option<usize> {
            (path.starts_with(parent) && path.len() > parent.len()).then_some(parent.len())
        };
        let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (from, all) in &self.named {
            let Some(at) = child(from) else { continue };
            let targets = all.iter().filter(|to| child(to).is_some());
            let targets = targets.map(|to| to[at].as_str());
            let others = targets.filter(|to| *to != from[at]);
            edges.entry(&from[at]).or_default().extend(others);
        }
        edges
    }
}

fn module_of(file: &str) -> Path {
    let name = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let parts = name.split('/').map(str::to_owned);
    let root = ["lib", "main"];
    parts.filter(|it| !root.contains(&it.as_str())).collect()
}

/// The groups of nodes that reach each other.
fn circles<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<BTreeSet<&'a str>> {
    let reach = |from: &'a str| {
        let mut seen = BTreeSet::new();
        let mut left = vec![from];
        while let Some(node) = left.pop() {
            for &next in edges.get(node).into_iter().flatten() {
                if seen.insert(next) {
                    left.push(next);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        edges.keys().map(|node| (*node, reach(node))).collect();
    let mut found: Vec<BTreeSet<&str>> = Vec::new();
    for (node, all) in &reached {
        let back = |other: &&&str| reached.get(**other).is_some_and(|it| it.contains(node));
        let circle: BTreeSet<&str> = all.iter().filter(back).copied().collect();
        if !circle.is_empty() && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

/// The module that a path leads to: the longest one that is known.
fn resolve(path: &[String], own: &[String], known: &BTreeSet<Path>) -> Option<Path> {
    let (start, mut rest) = match path.first()?.as_str() {
        "crate" => (Vec::new(), &path[1..]),
        "self" => (own.to_vec(), &path[1..]),
        "super" => (own[..own.len().checked_sub(1)?].to_vec(), &path[1..]),
        // Of a `use`, from where it stands.
        _ => (own.to_vec(), path),
    };
    let mut at = start;
    while rest.first().is_some_and(|it| it == "super") {
        at.pop()?;
        rest = &rest[1..];
    }
    for part in rest {
        at.push(part.clone());
        if !known.contains(&at) {
            at.pop();
            break;
        }
    }
    (at != own && !at.is_empty()).then_some(at)
}

/// All paths that a text names: those of `use`, and those that begin with `crate` or `super`.
fn paths(text: &str) -> Vec<Path> {
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let code: String = text[..tests]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some(at) = rest.find(|it: char| it.is_alphabetic() || it == '_') {
        let word_end = rest[at..]
            .find(|it: char| !it.is_alphanumeric() && it != '_')
            .map_or(rest.len(), |len| at + len);
        let word = &rest[at..word_end];
        let starts_path = !rest[..at].ends_with("::");
        if word == "use" {
            let end = rest[word_end..]
                .find(';')
                .map_or(rest.len(), |it| word_end + it);
            expand(&[], &rest[word_end..end], &mut found);
            rest = &rest[end..];
        } else if starts_path && matches!(word, "crate" | "super" | "self") {
            let end = rest[at..]
                .find(|it: char| !it.is_alphanumeric() && it != '_' && it != ':')
                .map_or(rest.len(), |len| at + len);
            let parts = rest[at..end].split("::").map(str::to_owned);
            let path: Path = parts.filter(|it| !it.is_empty()).collect();
            if path.len() > 1 {
                found.push(path);
            }
            rest = &rest[end..];
        } else {
            rest = &rest[word_end..];
        }
    }
    found
}

/// Takes the groups of a `use` apart.
fn expand(prefix: &[String], tree: &str, found: &mut Vec<Path>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        let parts = path.split("::").map(|it| it.trim().to_owned());
        let path: Path = prefix.iter().cloned().chain(parts).collect();
        found.push(path);
        return;
    };
    let parts = tree[..open].split("::").map(|it| it.trim().to_owned());
    let parts = parts.filter(|it| !it.is_empty());
    let prefix: Path = prefix.iter().cloned().chain(parts).collect();
    let inner = tree[open + 1..].trim_end().trim_end_matches('}');
    let (mut depth, mut begin) = (0, 0);
    for (at, char) in inner.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &inner[begin..at], found);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if !inner[begin..].trim().is_empty() {
        expand(&prefix, &inner[begin..], found);
    }
}

#[test]
fn modules_that_name_each_other_are_a_cycle() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let modules = Modules::new(&[
        file("lib.rs", "mod a; mod b; mod c;"),
        file("a/mod.rs", "mod x;\nuse crate::{b::{Thing, y::Other}, c};"),
        file("a/x.rs", "use super::Own;"),
        file("b/mod.rs", "mod y;"),
        file("b/y.rs", "fn f() { crate::a::x::g(); }"),
        file("c.rs", "// use crate::a;\nuse std::fmt;"),
    ]);
    assert_eq!(modules.cycles(), [["a", "b"]]);
}
