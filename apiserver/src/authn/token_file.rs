//! `--token-auth-file`: static tokens as CSV, `token,user,uid[,"group1,group2"]`.
//!
//! What must not be here: reloading; upstream reads the file once.

use std::collections::HashMap;

use super::User;

#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("token file must have at least 3 columns (token, user name, user uid), found {0}")]
    Columns(usize),
    #[error("token file: line {0}: quote is not closed")]
    Quote(usize),
}

/// The users by token.
pub fn parse(text: &str) -> Result<HashMap<String, User>, TokenFileError> {
    let mut users = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let record = fields(line).ok_or(TokenFileError::Quote(number + 1))?;
        let [token, name, uid, rest @ ..] = record.as_slice() else {
            return Err(TokenFileError::Columns(record.len()));
        };
        if token.is_empty() {
            tracing::warn!(
                record = number + 1,
                "empty token has been found in token file"
            );
            continue;
        }
        let user = User {
            name: name.clone(),
            uid: uid.clone(),
            groups: rest
                .first()
                .map(|groups| groups.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            ..User::default()
        };
        if users.insert(token.clone(), user).is_some() {
            tracing::warn!(
                record = number + 1,
                "duplicate token has been found in token file"
            );
        }
    }
    Ok(users)
}

/// The fields of one CSV record; `None` when a quoted field does not end on the line.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut rest = line;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let end = quoted.find('"')?;
                field.push_str(&quoted[..end]);
                quoted = &quoted[end + 1..];
                let Some(more) = quoted.strip_prefix('"') else {
                    break;
                };
                field.push('"');
                quoted = more;
            }
            rest = quoted;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        out.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Some(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_users_and_quoted_groups() {
        let users = parse("t0ken,ann,1,\"a,b\"\n\n,nobody,2\nother,bob,3\n").unwrap();
        assert_eq!(users.len(), 2);
        assert_eq!(users["t0ken"].groups, ["a", "b"]);
        assert!(users["other"].groups.is_empty());
    }

    #[test]
    fn two_columns_are_too_few() {
        assert!(matches!(parse("a,b"), Err(TokenFileError::Columns(2))));
    }
}
