//! What Go's `net/url` takes for a URL, which is both more and less than RFC 3986 says.

use std::net::Ipv6Addr;

/// Why a text is no URL.
pub(super) fn check(text: &str) -> Result<(), String> {
    let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
    if url.bytes().any(|b| b.is_ascii_control()) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    let (scheme, rest) = scheme(url)?;
    let (rest, _query) = rest.split_once('?').unwrap_or((rest, ""));
    if !rest.starts_with('/') {
        if !scheme.is_empty() {
            // Opaque: `mailto:somebody`.
            return escapes(fragment);
        }
        let first = rest.split('/').next().unwrap_or_default();
        if first.contains(':') {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
    }
    let mut path = rest;
    if let Some(rest) = rest.strip_prefix("//")
        && (!scheme.is_empty() || !rest.starts_with('/'))
    {
        let end = rest.find('/').unwrap_or(rest.len());
        authority(&rest[..end])?;
        path = &rest[end..];
    }
    escapes(path)?;
    escapes(fragment)
}

fn scheme(url: &str) -> Result<(&str, &str), String> {
    for (at, byte) in url.bytes().enumerate() {
        match byte {
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((&url[..at], &url[at + 1..])),
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            _ => break,
        }
    }
    Ok(("", url))
}

fn authority(authority: &str) -> Result<(), String> {
    let Some((user, host)) = authority.rsplit_once('@') else {
        return self::host(authority);
    };
    self::host(host)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
    if !user.bytes().all(allowed) {
        return Err("net/url: invalid userinfo".to_owned());
    }
    escapes(user)
}

fn host(host: &str) -> Result<(), String> {
    let Some(open) = host.rfind('[') else {
        if let Some(colon) = host.find(':') {
            port(&host[colon..])?;
        }
        return host_name(host);
    };
    let close = host.rfind(']').filter(|close| *close > open);
    let close = close.ok_or("missing ']' in host")?;
    port(&host[close + 1..])?;
    let name = &host[open + 1..close];
    // A zone is set off by an escaped percent sign (RFC 6874).
    let (address, zone) = match name.split_once("%25") {
        Some((address, zone)) => (address, Some(zone)),
        None => (name, None),
    };
    host_name(address)?;
    escapes(zone.unwrap_or_default())?;
    let parsed = address.parse::<Ipv6Addr>();
    match (parsed, zone) {
        (Ok(_), Some("")) => Err("invalid host: zone must be a non-empty string".to_owned()),
        (Ok(_), _) if open == 0 => Ok(()),
        _ => Err("invalid host: unable to parse IP".to_owned()),
    }
}

/// With its colon, if there is one.
fn port(port: &str) -> Result<(), String> {
    let valid = match port.strip_prefix(':') {
        Some(number) => number.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    match valid {
        true => Ok(()),
        false => Err(format!("invalid port {port:?} after host")),
    }
}

/// Of ASCII only what needs no escape, and escapes only of what is not ASCII.
fn host_name(name: &str) -> Result<(), String> {
    const ALLOWED: &[u8] = b"!$&'()*+,;=:[]<>\"-_.~";
    for (at, byte) in name.bytes().enumerate() {
        if byte == b'%' {
            let escaped = escape(name, at)?;
            if escaped.is_ascii() && escaped != b'%' {
                return Err(format!("invalid URL escape {:?}", &name[at..at + 3]));
            }
        } else if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !ALLOWED.contains(&byte) {
            let found = char::from(byte).to_string();
            return Err(format!("invalid character {found:?} in host name"));
        }
    }
    Ok(())
}

/// Whether every `%` begins an escape.
fn escapes(text: &str) -> Result<(), String> {
    let mut signs = text.match_indices('%');
    signs.try_for_each(|(at, _)| escape(text, at).map(drop))
}

/// The byte that is escaped.
fn escape(text: &str, at: usize) -> Result<u8, String> {
    let digits = text.get(at + 1..at + 3);
    let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.ok_or_else(|| {
        let shown: String = text[at..].chars().take(3).collect();
        format!("invalid URL escape {shown:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn what_go_takes() {
        for url in [
            "https://a/b",
            "https://a:99999/",
            "https://a/b c",
            "https://a:/",
            "a",
            "",
            "*",
            "https:",
            "https:opaque",
            "//a/b",
            "https://[::1]:80/",
            "https://[fe80::1%25eth0]/",
            "https://[fe80::%25%31]/",
            "https://[::ffff:1.2.3.4]/",
            "https://é/",
            "https://a%C3%A9/",
            "https://a<b/",
            "https://]/",
            "https://:80/",
            "https://@/",
            "https://a@b@c/",
            "https://a/?%zz",
            "https://a;b,c/",
            "a:b",
            "/x",
            "///x",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn what_go_does_not_take() {
        for url in [
            "https://a b/",
            "https://[::1",
            "https://a:b/",
            "https://a%zz/",
            "https://a/%zz",
            "https://a/%é",
            "https://a/\x7f",
            "https://a\n",
            "https://us er@a/",
            "https://u<r@a",
            "://a",
            " https://a",
            "1https://a",
            "h%74tps://a",
            "https://a\\b/",
            "https://a|b/",
            "https://a/#%zz",
            "https://%41/",
            "https://a%20b/",
            "https://a:80:90/",
            "https://a/%",
            "https://[a]/",
            "https://[]/",
            "https://[v1.x]/",
            "https://[::1]x/",
            "https://[fe80::1%eth0]/",
            "https://[::1%25]/",
            "https://[1.2.3.4]/",
        ] {
            assert!(check(url).is_err(), "{url}");
        }
    }
}
