//! Checks of names, labels, ports, addresses, each returning what is wrong with the value in
//! upstream's words; an empty list means that it is valid.
//!
//! The regular expressions are shown in messages; the checks themselves are plain code.

pub mod ip;

/// Longest DNS label (RFC 1123), longest label value, longest name part of a qualified name.
pub const LABEL_MAX_LENGTH: usize = 63;
/// Longest DNS subdomain.
pub const SUBDOMAIN_MAX_LENGTH: usize = 253;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1123_SUBDOMAIN_UNDERSCORE: &str =
    r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const DNS1035_LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// What was found wrong.
pub type Messages = Vec<String>;

pub fn max_len_error(length: usize) -> String {
    format!("must be no more than {length} characters")
}

pub fn empty_error() -> String {
    "must be non-empty".to_owned()
}

pub fn inclusive_range_error(lo: i64, hi: i64) -> String {
    format!("must be between {lo} and {hi}, inclusive")
}

/// `msg (e.g. 'x',  or 'y', regex used for validation is '…')`, odd commas as upstream.
pub fn regex_error(msg: &str, regex: &str, examples: &[&str]) -> String {
    let mut out = format!("{msg} (");
    for (i, example) in examples.iter().enumerate() {
        out.push_str(if i == 0 { "e.g. " } else { " or " });
        out.push_str(&format!("'{example}', "));
    }
    out + &format!("regex used for validation is '{regex}')")
}

/// First and last byte of `s` satisfy `edge`, those between `edge` or `inner`.
fn framed(s: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let b = s.as_bytes();
    match b {
        [] => false,
        [one] => edge(*one),
        [first, between @ .., last] => {
            edge(*first) && edge(*last) && between.iter().all(|b| edge(*b) || inner(*b))
        }
    }
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_dns1123_label(s: &str) -> bool {
    framed(s, lower_alnum, |b| b == b'-')
}

fn is_dns1123_subdomain(s: &str) -> bool {
    s.split('.').all(is_dns1123_label)
}

fn is_name(s: &str) -> bool {
    framed(
        s,
        |b| b.is_ascii_alphanumeric(),
        |b| matches!(b, b'-' | b'_' | b'.'),
    )
}

/// A DNS label (RFC 1123): most names that end up as a host's first part.
pub fn dns1123_label(s: &str) -> Messages {
    let mut errs = Messages::new();
    if s.len() > LABEL_MAX_LENGTH {
        errs.push(max_len_error(LABEL_MAX_LENGTH));
    }
    if !is_dns1123_label(s) {
        errs.push(if is_dns1123_subdomain(s) {
            "must not contain dots".to_owned()
        } else {
            regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                DNS1123_LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    errs
}

/// A domain and a path, such as `example.com/path`: which part is wrong, and why.
pub fn domain_prefixed_path(s: &str) -> Vec<(&str, String)> {
    let parts = s.split_once('/');
    let Some((domain, path)) =
        parts.filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        let message = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return vec![(s, message.to_owned())];
    };
    let wrong = dns1123_subdomain(domain).into_iter();
    let mut wrong: Vec<_> = wrong.map(|message| (domain, message.to_string())).collect();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/".contains(&b);
    if !path.bytes().all(allowed) {
        let message =
            "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        wrong.push((path, message.to_owned()));
    }
    wrong
}

/// A DNS subdomain (RFC 1123): the default for object names.
pub fn dns1123_subdomain(s: &str) -> Messages {
    let mut errs = Messages::new();
    if s.len() > SUBDOMAIN_MAX_LENGTH {
        errs.push(max_len_error(SUBDOMAIN_MAX_LENGTH));
    }
    if !is_dns1123_subdomain(s) {
        errs.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            DNS1123_SUBDOMAIN,
            &["example.com"],
        ));
    }
    errs
}

/// A DNS subdomain in which labels may hold underscores and start with one.
pub fn dns1123_subdomain_with_underscore(s: &str) -> Messages {
    let mut errs = Messages::new();
    if s.len() > SUBDOMAIN_MAX_LENGTH {
        errs.push(max_len_error(SUBDOMAIN_MAX_LENGTH));
    }
    let label = |l: &str| {
        framed(l.strip_prefix('_').unwrap_or(l), lower_alnum, |b| {
            matches!(b, b'-' | b'_')
        })
    };
    if !s.split('.').all(label) {
        errs.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            DNS1123_SUBDOMAIN_UNDERSCORE,
            &["example.com"],
        ));
    }
    errs
}

/// A DNS label that starts with a letter (RFC 1035): Service names.
pub fn dns1035_label(s: &str) -> Messages {
    let mut errs = Messages::new();
    if s.len() > LABEL_MAX_LENGTH {
        errs.push(max_len_error(LABEL_MAX_LENGTH));
    }
    if !is_dns1123_label(s) || !s.starts_with(|c: char| c.is_ascii_lowercase()) {
        errs.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            DNS1035_LABEL,
            &["my-name", "abc-123"],
        ));
    }
    errs
}

/// `*.` and a DNS subdomain (RFC 1034 §4.3.3).
pub fn wildcard_dns1123_subdomain(s: &str) -> Messages {
    let mut errs = Messages::new();
    if s.len() > SUBDOMAIN_MAX_LENGTH {
        errs.push(max_len_error(SUBDOMAIN_MAX_LENGTH));
    }
    if !s.strip_prefix("*.").is_some_and(is_dns1123_subdomain) {
        errs.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{DNS1123_SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    errs
}

/// Upstream counts the length of labels in bytes, and that of names in characters.
const LABEL_TOO_LONG: &str = "must be no more than 63 bytes";

/// A qualified name, `[prefix/]name`: label and annotation keys, finalizers, resource names.
pub fn qualified_name(s: &str) -> Messages {
    const MSG: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let examples = ["MyName", "my.name", "123-abc"];
    let mut errs = Messages::new();
    let name = match s.split_once('/') {
        None => s,
        Some((_, name)) if name.contains('/') => {
            errs.push(format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_error(MSG, QUALIFIED_NAME, &examples)
            ));
            return errs;
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                errs.push(format!("prefix part {}", empty_error()));
            } else {
                errs.extend(
                    dns1123_subdomain(prefix)
                        .iter()
                        .map(|m| format!("prefix part {m}")),
                );
            }
            name
        }
    };
    if name.is_empty() {
        errs.push(format!("name part {}", empty_error()));
    } else if name.len() > LABEL_MAX_LENGTH {
        errs.push(format!("name part {LABEL_TOO_LONG}"));
    }
    if !is_name(name) {
        errs.push(format!(
            "name part {}",
            regex_error(MSG, QUALIFIED_NAME, &examples)
        ));
    }
    errs
}

/// A label's value, which may be empty.
pub fn label_value(s: &str) -> Messages {
    let mut errs = Messages::new();
    if s.len() > LABEL_MAX_LENGTH {
        errs.push(LABEL_TOO_LONG.to_owned());
    }
    if !s.is_empty() && !is_name(s) {
        errs.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            &format!("({QUALIFIED_NAME})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    errs
}

/// An integer as people write it, of any size: no plus, no leading zero, no minus before zero.
pub fn decimal_integer(s: &str) -> Messages {
    if s.is_empty() {
        return vec![empty_error()];
    }
    let digits = s.strip_prefix('-').unwrap_or(s);
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if s != "0" && (digits.is_empty() || !plain) {
        return vec!["must be a valid decimal integer in canonical form".to_owned()];
    }
    Messages::new()
}

/// An identifier of C.
pub fn c_identifier(s: &str) -> Messages {
    let ok = !s.starts_with(|c: char| c.is_ascii_digit())
        && !s.is_empty()
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if ok {
        return Messages::new();
    }
    vec![regex_error(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// 1 to 65535.
pub fn port_number(port: i64) -> Messages {
    in_range(port, 1, 65535)
}

/// `lo` to `hi`, both included.
pub fn in_range(value: i64, lo: i64, hi: i64) -> Messages {
    if (lo..=hi).contains(&value) {
        Messages::new()
    } else {
        vec![inclusive_range_error(lo, hi)]
    }
}

/// A Unix user or group id as the API allows it.
pub fn unix_id(id: i64) -> Messages {
    in_range(id, 0, i64::from(i32::MAX))
}

/// An IANA service name (RFC 6335), lower case: a port's name.
pub fn port_name(s: &str) -> Messages {
    let mut errs = Messages::new();
    if s.len() > 15 {
        errs.push(max_len_error(15));
    }
    if s.is_empty() || !s.bytes().all(|b| lower_alnum(b) || b == b'-') {
        errs.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !s.bytes().any(|b| b.is_ascii_lowercase()) {
        errs.push("must contain at least one letter (a-z)".to_owned());
    }
    if s.contains("--") {
        errs.push("must not contain consecutive hyphens".to_owned());
    }
    if s.starts_with('-') || s.ends_with('-') {
        errs.push("must not begin or end with a hyphen".to_owned());
    }
    errs
}

/// A whole number and a percent sign.
pub fn percent(s: &str) -> Messages {
    let digits = s.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Messages::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// The name of an HTTP header.
pub fn http_header_name(s: &str) -> Messages {
    if !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Messages::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// The name of an environment variable, in the strict form.
pub fn env_var_name(s: &str) -> Messages {
    let letter = |b: u8| b.is_ascii_alphabetic() || matches!(b, b'-' | b'.' | b'_');
    let ok =
        s.bytes().next().is_some_and(letter) && s.bytes().all(|b| letter(b) || b.is_ascii_digit());
    let mut errs = Messages::new();
    if !ok {
        errs.push(regex_error(
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit",
            "[-._a-zA-Z][-._a-zA-Z0-9]*",
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    errs.extend(parent_directory(s));
    errs
}

/// The name of an environment variable: any printable ASCII but `=`
/// (`RelaxedEnvironmentVariableValidation`, GA since 1.34).
pub fn relaxed_env_var_name(s: &str) -> Messages {
    if s.is_empty() {
        return vec![format!("environment variable name {}", empty_error())];
    }
    if s.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Messages::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// A key of a ConfigMap or Secret: it becomes a file name.
pub fn config_map_key(s: &str) -> Messages {
    let mut errs = Messages::new();
    if s.len() > SUBDOMAIN_MAX_LENGTH {
        errs.push(max_len_error(SUBDOMAIN_MAX_LENGTH));
    }
    let ok = !s.is_empty()
        && s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if !ok {
        errs.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    errs.extend(parent_directory(s));
    errs
}

fn parent_directory(s: &str) -> Option<String> {
    match s {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        s if s.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// A segment of a URL's path: names that have no other rule (RBAC's roles, for example).
pub fn path_segment_name(s: &str) -> Messages {
    if s == "." || s == ".." {
        return vec![format!("may not be '{s}'")];
    }
    let illegal = ['/', '%'].iter().filter(|c| s.contains(**c));
    illegal.map(|c| format!("may not contain '{c}'")).collect()
}

/// What a `generateName` is checked as: with a suffix in the place of its trailing dash.
pub fn mask_trailing_dash(name: &str) -> String {
    match name.strip_suffix('-') {
        Some(base) if !base.is_empty() => {
            let mut masked = base.to_owned();
            masked.pop();
            masked + "a"
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_labels() {
        for ok in ["a", "ab", "a-1", "0", &"a".repeat(63)] {
            assert!(dns1123_label(ok).is_empty(), "{ok}");
        }
        for bad in ["", "A", "-a", "a-", "a_b", "é"] {
            assert_eq!(
                dns1123_label(bad),
                [
                    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                ],
                "{bad}"
            );
        }
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            label_value(&"a".repeat(64)),
            ["must be no more than 63 bytes"]
        );
        assert_eq!(
            dns1123_label(&"a".repeat(64)),
            ["must be no more than 63 characters"]
        );
        assert!(dns1035_label("a1").is_empty() && !dns1035_label("1a").is_empty());
        assert!(dns1123_subdomain("a.b-c.1").is_empty() && !dns1123_subdomain("a..b").is_empty());
        assert!(wildcard_dns1123_subdomain("*.a.b").is_empty());
        assert!(!wildcard_dns1123_subdomain("*a.b").is_empty());
        assert!(dns1123_subdomain_with_underscore("_a.b_c").is_empty());
    }

    #[test]
    fn qualified_names() {
        for ok in ["a", "A_b.c-1", "example.com/A", "a.b/c"] {
            assert!(qualified_name(ok).is_empty(), "{ok}");
        }
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/").len(), 2);
        assert!(qualified_name("a/b/c")[0].starts_with("a valid label key must consist of"));
        assert_eq!(qualified_name("a/b/c").len(), 1);
        assert!(qualified_name("A.b/c")[0].starts_with("prefix part a lowercase RFC 1123"));
        assert!(label_value("").is_empty() && !label_value("-").is_empty());
    }

    #[test]
    fn ports_and_keys() {
        assert!(port_name("http-1").is_empty());
        assert_eq!(port_name("1--").len(), 3);
        assert_eq!(port_name("").len(), 2);
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
        assert!(config_map_key("a.b_C-1").is_empty());
        assert_eq!(config_map_key(".."), ["must not be '..'"]);
        assert_eq!(config_map_key("..a"), ["must not start with '..'"]);
        assert!(env_var_name("_A.b-1").is_empty() && !env_var_name("1A").is_empty());
        assert!(relaxed_env_var_name("1 A").is_empty() && !relaxed_env_var_name("a=b").is_empty());
        assert!(percent("5%").is_empty() && !percent("%").is_empty());
        assert_eq!(
            path_segment_name("a/b%"),
            ["may not contain '/'", "may not contain '%'"]
        );
        assert_eq!(mask_trailing_dash("ab-"), "aa");
        assert_eq!(mask_trailing_dash("-"), "-");
    }
}
