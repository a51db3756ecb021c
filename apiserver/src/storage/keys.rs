//! Where an object lives in etcd: `<etcd prefix>/<storage prefix>/[<namespace>/]<name>`.
//!
//! The storage prefix is a fact of the schema (`pods`, `services/specs`, `minions`) or, for a
//! custom resource, `<group>/<plural>`. The registry and the cache both build keys here.
//!
//! What must not be here: which resource has which storage prefix.

/// Builds and reads keys under one `--etcd-prefix`.
#[derive(Debug, Clone)]
pub struct Keys {
    root: String,
}

impl Keys {
    /// `prefix` is `--etcd-prefix` (`/registry`); slashes at its ends do not matter.
    pub fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        let root = if prefix.is_empty() {
            "/".to_owned()
        } else {
            format!("/{prefix}/")
        };
        Self { root }
    }

    /// The prefix of every key, with a slash at its end.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The prefix of a resource's keys, with a slash at its end.
    pub fn resource(&self, storage_prefix: &str) -> String {
        format!("{}{storage_prefix}/", self.root)
    }

    /// An object's key; `namespace` is empty for a cluster-scoped one.
    pub fn object(&self, storage_prefix: &str, namespace: &str, name: &str) -> String {
        let root = &self.root;
        if namespace.is_empty() {
            format!("{root}{storage_prefix}/{name}")
        } else {
            format!("{root}{storage_prefix}/{namespace}/{name}")
        }
    }
}

/// `<namespace>/<name>`, or `<name>` when the namespace is empty.
pub fn relative(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

/// Namespace and name of a relative key; the namespace is empty for a cluster-scoped object.
pub fn split(relative: &str) -> (&str, &str) {
    relative.split_once('/').unwrap_or(("", relative))
}

/// The end of the range of keys that begin with `prefix`, as etcd has it: the first key behind
/// all of them, or a NUL ("to the end") when there is none.
pub fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// [`range_end`] of a prefix that ends with a slash, as a key.
pub fn prefix_end(prefix: &str) -> String {
    String::from_utf8(range_end(prefix)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_where_upstream_puts_them() {
        let keys = Keys::new("/registry");
        assert_eq!(keys.object("pods", "a", "b"), "/registry/pods/a/b");
        assert_eq!(
            keys.object("minions", "", "node-1"),
            "/registry/minions/node-1"
        );
        assert_eq!(keys.resource("services/specs"), "/registry/services/specs/");
        assert_eq!(
            Keys::new("kubernetes.io/registry/").root(),
            "/kubernetes.io/registry/"
        );
    }

    #[test]
    fn a_key_is_read_back() {
        let keys = Keys::new("registry");
        let key = keys.object("services/specs", "ns", "web");
        let rest = key.strip_prefix("/registry/services/specs/").unwrap();
        assert_eq!(split(rest), ("ns", "web"));
        assert_eq!(relative("ns", "web"), rest);
        assert_eq!(split("node-1"), ("", "node-1"));
    }

    #[test]
    fn a_range_ends_behind_its_prefix() {
        assert_eq!(range_end("/a/"), b"/a0");
        assert_eq!(range_end(""), b"\0");
    }
}
