//! What is told of an expression that is wrong.

use std::fmt;

use crate::SyntaxError;
use crate::lexer::wrong;

/// How many are told; the others are counted.
const TOLD: usize = 100;
/// A line that is longer is not shown.
const LONGEST_LINE: usize = 16384;

/// One thing that is wrong. It is shown with the line, and a mark below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
    snippet: Option<String>,
}

/// All that is wrong, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Issues {
    issues: Vec<Issue>,
    more: usize,
}

impl Issues {
    pub(super) fn of_syntax(text: &str, error: SyntaxError) -> Self {
        Self {
            issues: vec![Issue::of(text, error)],
            more: 0,
        }
    }

    /// Of places, in characters, and messages.
    pub(super) fn of(text: &str, found: Vec<(usize, String)>) -> Self {
        let more = found.len().saturating_sub(TOLD);
        let found = found.into_iter().take(TOLD);
        let mut issues: Vec<Issue> = found
            .map(|(at, message)| Issue::of(text, wrong(text, at, message)))
            .collect();
        issues.sort_by_key(|issue| (issue.line, issue.column));
        Self { issues, more }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Issue> {
        self.issues.iter()
    }
}

impl Issue {
    fn of(text: &str, error: SyntaxError) -> Self {
        let SyntaxError {
            line,
            column,
            message,
        } = error;
        let snippet = text.split('\n').nth(line - 1);
        let snippet = snippet.filter(|line| line.len() <= LONGEST_LINE);
        Self {
            line,
            column,
            message,
            snippet: snippet.map(|line| line.replace('\t', " ")),
        }
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, issue) in self.issues.iter().enumerate() {
            write!(f, "{}{issue}", if i == 0 { "" } else { "\n" })?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\n{more} more errors were truncated"),
        }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            message,
            snippet,
        } = self;
        write!(f, "ERROR: <input>:{line}:{column}: {message}")?;
        let Some(snippet) = snippet else {
            return Ok(());
        };
        // Wide characters have wide marks below them.
        let wide = |c: char| c.len_utf8() > 1;
        let before = snippet.chars().take(column - 1);
        let dots: String = before
            .map(|c| if wide(c) { '\u{ff0e}' } else { '.' })
            .collect();
        let mark = match snippet.chars().nth(column - 1) {
            Some(c) if wide(c) => '\u{ff3e}',
            _ => '^',
        };
        write!(f, "\n | {snippet}\n | {dots}{mark}")
    }
}
