//! Finds the URLs in a page while it goes by, and changes them.
//!
//! Tokens are told apart as by HTML's tokenizer (WHATWG HTML, 13.2.5), without the tree that a
//! page makes: as upstream does, CDATA sections are comments, also in foreign content. What is no
//! URL is passed on byte by byte, so that nothing but one URL is ever held back, however long a
//! page, its tags or its attributes are, and every byte is looked at once.
//!
//! What must not be here: what becomes of a URL.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, percent_encode};

/// Attributes that hold a URL (HTML 4.01's index of attributes, and HTML 5's), by element.
const URLS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

const SCRIPT: &str = "script";

/// Elements in which there are no tags but the one that ends them.
const RAW: [&str; 10] = [
    "iframe", "noembed", "noframes", "noscript", PLAINTEXT, SCRIPT, "style", "textarea", "title",
    "xmp",
];

/// Nothing in it, and nothing around it, is markup any more.
const PLAINTEXT: &str = "plaintext";

/// What is longer leads nowhere (servers take some kilobytes), but may be an image in itself.
const LONGEST_URL: usize = 64 << 10;

/// The name of an element or attribute in small letters, as far as one that matters may go.
#[derive(Default)]
struct Name {
    bytes: [u8; 10],
    length: usize,
}

impl Name {
    fn push(&mut self, byte: u8) {
        if let Some(free) = self.bytes.get_mut(self.length) {
            *free = byte.to_ascii_lowercase();
        }
        self.length = self.length.saturating_add(1);
    }

    fn is(&self, name: &str) -> bool {
        self.bytes.get(..self.length) == Some(name.as_bytes())
    }
}

/// What the next byte belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// `<`
    Open,
    /// `</`
    EndOpen,
    /// `<!`, and so many dashes
    Declaration(u8),
    /// What ends with `>` and is nothing else: a document type, a processing instruction.
    Bogus,
    Comment(End),
    TagName,
    /// In a tag, where an attribute may begin.
    Attributes,
    AttributeName,
    AfterName,
    BeforeValue,
    /// Up to the quote, or to where a value without quotes ends.
    Value(Option<u8>),
    AfterValue,
    /// In one of [`RAW`].
    Raw,
    RawOpen,
    /// `<!` in a script, and so many dashes
    RawDeclaration(u8),
    /// So many letters of the element's own name, behind `</` or behind `<`.
    RawName(usize, bool),
    Plaintext,
}

/// How much of a comment's end has been seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing but so many dashes yet: `<!-->` and `<!--->` are comments too.
    Beginning(u8),
    Dashes(u8),
    /// `--!`
    Bang,
}

/// What surrounds the text of a script (13.2.5.17 and following).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    Plain,
    /// `<!--`
    Escaped,
    /// `<!-- <script>`: the next `</script>` does not end the script that was begun first.
    DoubleEscaped,
}

type Change = dyn Fn(&str) -> Option<String> + Send;

/// Changes the URLs of one page.
pub struct Rewriter {
    through: Box<Change>,
    state: State,
    /// The name of the attribute or element that is being read.
    name: Name,
    /// This tag ends an element, so that no attribute of it matters.
    is_end: bool,
    /// Attributes of this tag that hold URLs.
    urls: &'static [&'static str],
    /// What this tag begins, or what is being read in [`State::Raw`].
    raw: Option<&'static str>,
    script: Script,
    /// Dashes in an escaped script that the text ends with.
    dashes: u8,
    /// A URL that has not ended yet, with its quotes.
    url: Option<Vec<u8>>,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}

/// Where the bytes end that nothing begins or ends with.
fn until(bytes: &[u8], is_end: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|b| is_end(*b)).unwrap_or(bytes.len())
}

impl Rewriter {
    /// `through` says what becomes of a URL, where it does not stay as it is.
    pub fn new(through: impl Fn(&str) -> Option<String> + Send + 'static) -> Self {
        Rewriter {
            through: Box::new(through),
            state: State::Text,
            name: Name::default(),
            is_end: false,
            urls: &[],
            raw: None,
            script: Script::Plain,
            dashes: 0,
            url: None,
        }
    }

    /// Reads a piece of the page and writes what becomes of it.
    pub fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut at = 0;
        while at < piece.len() {
            let length = self.uneventful(&piece[at..]);
            self.pass(&piece[at..at + length], out);
            at += length;
            if let Some(byte) = piece.get(at)
                && self.step(*byte, out)
            {
                self.pass(&[*byte], out);
                at += 1;
            }
        }
    }

    /// Writes what has been held back where the page ends in the middle of something.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.give_up(out);
    }

    /// How many bytes do not change the state.
    fn uneventful(&self, bytes: &[u8]) -> usize {
        match self.state {
            State::Text => until(bytes, |b| b == b'<'),
            State::Raw if self.script == Script::Plain => until(bytes, |b| b == b'<'),
            State::Raw if self.dashes == 0 => until(bytes, |b| matches!(b, b'<' | b'-')),
            State::Bogus => until(bytes, |b| b == b'>'),
            State::Comment(End::Dashes(0)) => until(bytes, |b| b == b'-'),
            State::Value(Some(quote)) => until(bytes, |b| b == quote),
            State::Value(None) => until(bytes, |b| b == b'>' || is_space(b)),
            State::Plaintext => bytes.len(),
            _ => 0,
        }
    }

    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(url) = &mut self.url else {
            out.extend_from_slice(bytes);
            return;
        };
        url.extend_from_slice(bytes);
        if url.len() > LONGEST_URL {
            self.give_up(out);
        }
    }

    /// Passes on the URL, which has ended, or what becomes of it.
    fn change(&mut self, out: &mut Vec<u8>) {
        let Some(url) = &self.url else {
            return;
        };
        let bare = match url.as_slice() {
            [b'"' | b'\'', bare @ .., _] => bare,
            bare => bare,
        };
        let text = match std::str::from_utf8(bare) {
            Ok(text) => Cow::Borrowed(text),
            // In another character set than that of URLs.
            Err(_) => percent_encode(bare, &AsciiSet::EMPTY).to_string().into(),
        };
        let Some(changed) = (self.through)(&text) else {
            return self.give_up(out);
        };
        self.url = None;
        out.push(b'"');
        out.extend_from_slice(changed.replace('"', "&quot;").as_bytes());
        out.push(b'"');
    }

    /// What was held back is passed on as it is.
    fn give_up(&mut self, out: &mut Vec<u8>) {
        if let Some(url) = self.url.take() {
            out.extend_from_slice(&url);
        }
    }

    /// Goes on to what follows the byte. `false`: the byte itself is the first of that.
    fn step(&mut self, byte: u8, out: &mut Vec<u8>) -> bool {
        let (next, taken) = match self.state {
            State::Text => (State::Open, true),
            State::Open => match byte {
                b'/' => (State::EndOpen, true),
                b'!' => (State::Declaration(0), true),
                b'?' => (State::Bogus, true),
                b if b.is_ascii_alphabetic() => (self.tag(false), false),
                _ => (State::Text, false),
            },
            State::EndOpen => match byte {
                b'>' => (State::Text, true),
                b if b.is_ascii_alphabetic() => (self.tag(true), false),
                _ => (State::Bogus, false),
            },
            State::Declaration(dashes) => match (byte, dashes) {
                (b'-', 0) => (State::Declaration(1), true),
                (b'-', _) => (State::Comment(End::Beginning(0)), true),
                _ => (State::Bogus, false),
            },
            State::Bogus => (State::Text, true),
            State::Comment(end) => (after_comment(end, byte), true),
            State::TagName if is_space(byte) || matches!(byte, b'/' | b'>') => {
                (self.start_tag(), false)
            }
            State::TagName => {
                self.name.push(byte);
                (State::TagName, true)
            }
            State::Attributes => match byte {
                b'>' => (self.content(), true),
                b'/' => (State::Attributes, true),
                b if is_space(b) => (State::Attributes, true),
                _ => {
                    // Also `=`, which is no name's end where nothing stands before it.
                    self.name = Name::default();
                    self.name.push(byte);
                    (State::AttributeName, true)
                }
            },
            State::AttributeName => match byte {
                b'/' | b'>' | b'=' => (State::AfterName, false),
                b if is_space(b) => (State::AfterName, false),
                _ => {
                    self.name.push(byte);
                    (State::AttributeName, true)
                }
            },
            State::AfterName => match byte {
                b'=' => (State::BeforeValue, true),
                b if is_space(b) => (State::AfterName, true),
                _ => (State::Attributes, false),
            },
            State::BeforeValue => match byte {
                b'>' => (State::Attributes, false),
                b if is_space(b) => (State::BeforeValue, true),
                _ => {
                    if self.urls.iter().any(|url| self.name.is(url)) {
                        self.url = Some(Vec::new());
                    }
                    let quote = matches!(byte, b'"' | b'\'').then_some(byte);
                    (State::Value(quote), quote.is_some())
                }
            },
            State::Value(quote) => (State::AfterValue, quote.is_some()),
            State::AfterValue => {
                self.change(out);
                (State::Attributes, false)
            }
            State::Raw => (self.raw_text(byte), true),
            State::RawOpen => match byte {
                b'/' => (State::RawName(0, true), true),
                b'!' if self.raw == Some(SCRIPT) && self.script == Script::Plain => {
                    (State::RawDeclaration(0), true)
                }
                b if b.is_ascii_alphabetic() && self.script == Script::Escaped => {
                    (State::RawName(0, false), false)
                }
                _ => (State::Raw, false),
            },
            State::RawDeclaration(dashes) => match (byte, dashes) {
                (b'-', 0) => (State::RawDeclaration(1), true),
                (b'-', _) => {
                    (self.script, self.dashes) = (Script::Escaped, 2);
                    (State::Raw, true)
                }
                _ => (State::Raw, false),
            },
            State::RawName(letters, is_end) => self.raw_name(letters, is_end, byte),
            State::Plaintext => (State::Plaintext, true),
        };
        self.state = next;
        taken
    }

    fn tag(&mut self, is_end: bool) -> State {
        (self.name, self.is_end) = (Name::default(), is_end);
        State::TagName
    }

    /// What the tag whose name has been read may hold, and begins.
    fn start_tag(&mut self) -> State {
        (self.urls, self.raw) = (&[], None);
        if !self.is_end {
            let name = &self.name;
            let known = URLS.iter().find(|(element, _)| name.is(element));
            self.urls = known.map_or(&[], |(_, attributes)| attributes);
            self.raw = RAW.into_iter().find(|element| name.is(element));
        }
        State::Attributes
    }

    /// What follows a tag.
    fn content(&mut self) -> State {
        (self.script, self.dashes) = (Script::Plain, 0);
        match self.raw {
            None => State::Text,
            Some(PLAINTEXT) => State::Plaintext,
            Some(_) => State::Raw,
        }
    }

    fn raw_text(&mut self, byte: u8) -> State {
        if byte == b'>' && self.dashes >= 2 {
            self.script = Script::Plain;
        }
        self.dashes = match byte {
            b'-' => self.dashes.saturating_add(1),
            _ => 0,
        };
        match byte {
            b'<' => State::RawOpen,
            _ => State::Raw,
        }
    }

    /// One letter more of what may be the name of the element that is being read.
    fn raw_name(&mut self, letters: usize, is_end: bool, byte: u8) -> (State, bool) {
        let name = self.raw.unwrap_or_default().as_bytes();
        if let Some(letter) = name.get(letters) {
            let same = byte.eq_ignore_ascii_case(letter);
            let next = match same {
                true => State::RawName(letters + 1, is_end),
                false => State::Raw,
            };
            return (next, same);
        }
        if !is_space(byte) && !matches!(byte, b'/' | b'>') {
            return (State::Raw, false);
        }
        self.script = match (is_end, self.script) {
            (true, Script::DoubleEscaped) => Script::Escaped,
            (false, _) => Script::DoubleEscaped,
            (true, _) => {
                (self.urls, self.raw) = (&[], None);
                return (State::Attributes, false);
            }
        };
        (State::Raw, false)
    }
}

fn after_comment(end: End, byte: u8) -> State {
    State::Comment(match (end, byte) {
        (End::Beginning(_), b'>') | (End::Bang, b'>') => return State::Text,
        (End::Dashes(2..), b'>') => return State::Text,
        (End::Beginning(2..) | End::Dashes(2..), b'!') => End::Bang,
        (End::Beginning(n), b'-') => End::Beginning(n.saturating_add(1)),
        (End::Dashes(n), b'-') => End::Dashes(n.saturating_add(1)),
        (End::Bang, b'-') => End::Dashes(1),
        _ => End::Dashes(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: [(&str, &str); 24] = [
        ("<p href=/a>/a</p href=/a>", "<p href=/a>/a</p href=/a>"),
        ("<A Href='/a'>", "<A Href=\"/P/a\">"),
        ("<a\n href = /a/>", "<a\n href = \"/P/a/\">"),
        (
            "<a/href=/a b='>'href=/b>",
            "<a/href=\"/P/a\" b='>'href=\"/P/b\">",
        ),
        ("<a href='/\"&amp;'>", "<a href=\"/P/&quot;&amp;\">"),
        (
            "<a href=a><a href=''><a href><a href=>",
            "<a href=a><a href=''><a href><a href=>",
        ),
        (
            "<a =href=/a hrefhrefhref=/a hre=/a>",
            "<a =href=/a hrefhrefhref=/a hre=/a>",
        ),
        (
            "<img usemap=/a longdesc=\"/b\"/>",
            "<img usemap=\"/P/a\" longdesc=\"/P/b\"/>",
        ),
        (
            "< a href=/a><1 href=/a></ a href=/a>",
            "< a href=/a><1 href=/a></ a href=/a>",
        ),
        (
            "</><!><?a><!a><a href=/a>",
            "</><!><?a><!a><a href=\"/P/a\">",
        ),
        ("<!--><a href=/a>-->", "<!--><a href=\"/P/a\">-->"),
        (
            "<!-- <a href=/a> -- > --!><a href=/a>",
            "<!-- <a href=/a> -- > --!><a href=\"/P/a\">",
        ),
        (
            "<!---!><a href=/a>-----><a href=/a>",
            "<!---!><a href=/a>-----><a href=\"/P/a\">",
        ),
        ("<![CDATA[<a href=/a>]]>", "<![CDATA[<a href=/a>]]>"),
        (
            "<title><a href=/a></a></titles></TITLE\n><a href=/a>",
            "<title><a href=/a></a></titles></TITLE\n><a href=\"/P/a\">",
        ),
        (
            "<script src=/a><a href=/a></script><a href=/a>",
            "<script src=\"/P/a\"><a href=/a></script><a href=\"/P/a\">",
        ),
        (
            "<script><!--<script></script><a href=/a></script><a href=/a>",
            "<script><!--<script></script><a href=/a></script><a href=\"/P/a\">",
        ),
        (
            "<script><!--<script>--x>--></script><a href=/a>",
            "<script><!--<script>--x>--></script><a href=\"/P/a\">",
        ),
        (
            "<script><!--<scripts></script><a href=/a>",
            "<script><!--<scripts></script><a href=\"/P/a\">",
        ),
        (
            "<script><!-<script></script><a href=/a>",
            "<script><!-<script></script><a href=\"/P/a\">",
        ),
        (
            "<style><!--<style></style><a href=/a>",
            "<style><!--<style></style><a href=\"/P/a\">",
        ),
        (
            "<plaintext></plaintext><a href=/a>",
            "<plaintext></plaintext><a href=/a>",
        ),
        (
            "<blockquote cite=/a><blockquotes cite=/a>",
            "<blockquote cite=\"/P/a\"><blockquotes cite=/a>",
        ),
        ("<a href=\"/a", "<a href=\"/a"),
    ];

    fn rewritten<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
        let through = |url: &str| url.starts_with('/').then(|| format!("/P{url}"));
        let (mut rewriter, mut out) = (Rewriter::new(through), Vec::new());
        for piece in pieces {
            rewriter.write(piece, &mut out);
        }
        rewriter.finish(&mut out);
        out
    }

    #[test]
    fn urls_are_found_however_a_page_is_cut() {
        for (before, after) in PAGES {
            for size in [1, 2, 3, 100] {
                let out = rewritten(before.as_bytes().chunks(size));
                assert_eq!(String::from_utf8(out).unwrap(), after, "{size}");
            }
        }
    }

    #[test]
    fn urls_in_other_character_sets_are_encoded() {
        let page: &[u8] = b"<a href=/\xe9>\xe9</a>";
        assert_eq!(
            rewritten([page].into_iter()),
            b"<a href=\"/P/%E9\">\xe9</a>"
        );
    }

    #[test]
    fn what_is_too_long_for_a_url_is_not_held_back() {
        let through = |_: &str| Some(String::new());
        let (mut rewriter, mut out) = (Rewriter::new(through), Vec::new());
        rewriter.write(b"<img alt='", &mut out);
        assert_eq!(out, b"<img alt='");
        rewriter.write(b"' src='", &mut out);
        let piece = [b'/'; 1 << 10];
        for _ in 0..100 {
            rewriter.write(&piece, &mut out);
        }
        assert_eq!(out.len(), "<img alt='' src='".len() + 100 * piece.len());
        out.clear();
        rewriter.write(b"' src=/>", &mut out);
        assert_eq!(out, b"' src=\"\">");
    }
}
