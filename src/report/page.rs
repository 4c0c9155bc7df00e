//! The page around results: its head and style, sections, tables.

use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::checkpoint::save_atomically;
use crate::format::percent;

const STYLE: &str = include_str!("style.css");

/// Whatever a name might smuggle in, nothing is loaded and nothing runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// A page that grows section by section.
pub struct Page {
    title: String,
    style: String,
    links: String,
    body: String,
}

impl Page {
    /// `lead` says in a sentence what the page is about.
    pub fn new(title: &str, lead: &str) -> Self {
        let body = format!("<h1>{}</h1>\n<p class=\"lead\">{}</p>\n", escape(title), escape(lead));
        Self { title: title.to_owned(), style: String::new(), links: String::new(), body }
    }

    /// Adds rules to the page's style.
    pub fn style(&mut self, rules: &str) {
        self.style += rules;
    }

    /// Adds HTML before the first section, or after the last.
    pub fn add(&mut self, html: &str) {
        self.body += html;
    }

    /// `id` names the section in links; `html` is its content.
    pub fn section(&mut self, id: &str, heading: &str, html: &str) {
        let heading = escape(heading);
        self.links += &format!("<a href=\"#{id}\">{heading}</a>");
        self.body += &format!("<section id=\"{id}\">\n<h2>{heading}</h2>\n{html}</section>\n");
    }

    pub fn html(&self) -> String {
        let Self { title, style, links, body } = self;
        let title = escape(title);
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
             <style>\n{STYLE}{style}</style>\n</head>\n<body>\n<nav>{links}</nav>\n<main>\n{body}\
             <footer>Made by Galley {version}</footer>\n</main>\n</body>\n</html>\n"
        )
    }

    /// Replaces the file at `path` as a whole.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        save_atomically(path, |writer| writer.write_all(self.html().as_bytes()))
    }
}

/// Text as HTML, also within quotes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // Control characters are no HTML; nor may a name turn the direction of the text around it.
            c if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c) => {
                escaped.push('\u{fffd}');
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// The address of a file on this machine, fit for an attribute.
pub fn address(path: &Path) -> String {
    let mut address = "file://".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                address.push(char::from(*byte))
            }
            byte => address += &format!("%{byte:02X}"),
        }
    }
    address
}

/// A table. Headings are text, cells are HTML; the first column is text to the left, the others are numbers.
pub fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let headings: String = headings.iter().map(|heading| format!("<th>{}</th>", escape(heading))).collect();
    let row = |cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = rows.into_iter().map(row).collect();
    format!(
        "<div class=\"wide\"><table>\n<thead><tr>{headings}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

/// A share, or a dash.
pub fn percent_or_dash(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(escape("<b onclick='x(\"&\")'>"), "&lt;b onclick=&#39;x(&quot;&amp;&quot;)&#39;&gt;");
        assert_eq!(escape("a\u{202e}b\n"), "a\u{fffd}b\u{fffd}");
        assert_eq!(address(Path::new("/a b/\"ü.jpg")), "file:///a%20b/%22%C3%BC.jpg");
        let page = Page::new("</title><script>", "<script>");
        assert!(!page.html().contains("<script>"));
    }
}
