//! Settings of the kernel that upstream's kubelet wants: memory is given on trust and the kernel's
//! killer takes it back, an oops ends in a reboot, and there are keys for many containers.

use std::fs;
use std::path::Path;

/// Path below `/proc/sys`, and the value wanted.
const WANTED: [(&str, i64); 6] = [
    ("vm/overcommit_memory", 1),
    ("vm/panic_on_oom", 0),
    ("kernel/panic", 10),
    ("kernel/panic_on_oops", 1),
    ("kernel/keys/root_maxkeys", 1_000_000),
    ("kernel/keys/root_maxbytes", 25_000_000),
];

/// What is otherwise, in upstream's words.
pub fn differing(sysctls: &Path) -> Vec<String> {
    let judge = |(flag, wanted): &(&str, i64)| {
        let text = match fs::read_to_string(sysctls.join(flag)) {
            Ok(text) => text,
            Err(error) => return Some(format!("{flag}: {error}")),
        };
        let found = text.trim();
        (found != wanted.to_string()).then(|| {
            format!("invalid kernel flag: {flag}, expected value: {wanted}, actual value: {found}")
        })
    };
    WANTED.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("kernel/keys")).unwrap();
        fs::create_dir_all(root.path().join("vm")).unwrap();
        for (flag, wanted) in WANTED {
            fs::write(root.path().join(flag), format!("{wanted}\n")).unwrap();
        }
        assert_eq!(differing(root.path()), [""; 0]);
        fs::write(root.path().join("kernel/panic"), "0\n").unwrap();
        let message = "invalid kernel flag: kernel/panic, expected value: 10, actual value: 0";
        assert_eq!(differing(root.path()), [message]);
        fs::remove_file(root.path().join("kernel/panic")).unwrap();
        assert!(differing(root.path())[0].starts_with("kernel/panic: "));
    }
}
