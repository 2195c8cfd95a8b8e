//! The page: a looking glass in the browser, of this program alone.

use std::borrow::Cow;

use super::api::{Body, Response, Status};

/// Nothing from elsewhere, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

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
    /// What is at a path.
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
            Self::Html => ("text/html; charset=utf-8", include_str!("page.html")),
            Self::Css => ("text/css; charset=utf-8", include_str!("page.css")),
            Self::Js => ("text/javascript; charset=utf-8", include_str!("page.js")),
        };
        let body = Body::Whole(Cow::Borrowed(text.as_bytes()));
        let mut response = Response::new(Status::Ok, media, body);
        if self == Self::Html {
            response
                .headers
                .push(("Content-Security-Policy", POLICY.into()));
            response
                .headers
                .push(("Referrer-Policy", "no-referrer".into()));
        }
        response
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
