//! The page: a looking glass in the browser, with no part from elsewhere.

use super::response::{Media, Response};

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asset {
    /// `/`.
    Html,
    /// `/page.css`.
    Css,
    /// `/page.js`.
    Js,
}

impl Asset {
    /// Returns the file at a path.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/" | "/index.html" => Some(Self::Html),
            "/page.css" => Some(Self::Css),
            "/page.js" => Some(Self::Js),
            _ => None,
        }
    }

    pub(super) fn response(self) -> Response {
        let (media, text) = match self {
            Self::Html => (Media::Html, include_str!("page.html")),
            Self::Css => (Media::Css, include_str!("page.css")),
            Self::Js => (Media::JavaScript, include_str!("page.js")),
        };
        Response::file(media, text)
    }
}

#[cfg(test)]
mod tests {
    use crate::inspect::PeerState;

    /// The script and the page list the states in their own languages.
    #[test]
    fn page_knows_every_state_of_a_peer() {
        let (html, script) = (include_str!("page.html"), include_str!("page.js"));
        for state in PeerState::ALL {
            let name = state.name();
            let option = format!("<option value=\"{name}\">");
            assert!(html.contains(&option), "no filter for {name}");
            let (_, colors) = script.split_once("const good = {").unwrap();
            let (colors, _) = colors.split_once('}').unwrap();
            assert!(colors.contains(&format!(" {name}: ")), "no color: {name}");
        }
    }
}
