//! A file system on a disk: made if the disk is empty, checked if it is not, mounted.

use std::path::Path;

use crate::sys::host::{Host, ToolError};

/// `blkid`: there is nothing on the disk that it knows.
const NOTHING_FOUND: i32 = 2;
/// `fsck`: what is wrong stays wrong.
const ERRORS_LEFT: i32 = 4;
/// Of a disk with a partition table, which is no file system and must not be written over.
const PARTITIONS: &str = "unknown data, probably partitions";

/// What is on a disk; empty if nothing is.
fn found_on(host: &Host, disk: &str) -> Result<String, String> {
    let arguments = ["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", disk];
    let output = match host.run("blkid", &arguments) {
        Err(error) if error.is(&[NOTHING_FOUND]) => return Ok(String::new()),
        output => {
            output.map_err(|error| format!("failed to get disk format of disk {disk}: {error}"))?
        }
    };
    let mut kind = String::new();
    for line in output.lines().filter(|line| !line.is_empty()) {
        match line.split('=').collect::<Vec<_>>()[..] {
            ["TYPE", value] => value.clone_into(&mut kind),
            ["PTTYPE", value] if !value.is_empty() => return Ok(PARTITIONS.into()),
            [_, _] => {}
            _ => return Err(format!("blkid returns invalid output: {output}")),
        }
    }
    Ok(kind)
}

fn check(host: &Host, disk: &str) -> Result<(), String> {
    match host.run("fsck", &["-a", disk]) {
        Err(ToolError::Failed {
            code: ERRORS_LEFT,
            output,
        }) => Err(format!(
            "'fsck' found errors on device {disk} but could not correct them: {output}"
        )),
        // Without it, or where it does not know the file system, mounting tells.
        _ => Ok(()),
    }
}

/// Mounts a disk's file system. `options` say `ro` for a disk that must not be written to.
///
/// # Errors
/// When the disk is broken, or empty and not to be written to.
pub fn mount_disk(
    host: &Host,
    disk: &Path,
    target: &Path,
    kind: &str,
    options: &[String],
) -> Result<(), String> {
    let (disk, target) = (disk.to_string_lossy(), target.to_string_lossy());
    let kind = if kind.is_empty() { "ext4" } else { kind };
    let read_only = options.iter().any(|option| option == "ro");
    let found = found_on(host, &disk)?;
    if found.is_empty() {
        if read_only {
            return Err(format!(
                "cannot mount unformatted disk {disk} as we are manipulating it in read-only mode"
            ));
        }
        let arguments = match kind {
            "ext3" | "ext4" => vec!["-F", "-m0", &*disk],
            "xfs" => vec!["-f", &*disk],
            _ => vec![&*disk],
        };
        host.run(&format!("mkfs.{kind}"), &arguments)
            .map_err(|error| format!("format of disk {disk:?} failed: type:({kind:?}) {error}"))?;
    } else if !read_only {
        check(host, &disk)?;
    }
    let options = [options, &["defaults".to_owned()]].concat().join(",");
    let mounted = host.run("mount", &["-t", kind, "-o", &options, &disk, &target]);
    mounted.map(drop).map_err(|error| {
        let unlike = if found.is_empty() || found == kind {
            ""
        } else {
            ", which has another format"
        };
        format!("mount of {disk}{unlike} failed: {error}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::host::fake::FakeHost;

    #[test]
    fn only_empty_disks_are_formatted() {
        let fake = FakeHost::new();
        let mount = |blkid: &str, kind: &str, options: &[&str]| {
            fake.tool("blkid", blkid);
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            let done = mount_disk(
                &fake.host,
                Path::new("/dev/sda"),
                Path::new("/t"),
                kind,
                &options,
            );
            let calls = fake.calls().split_off(1);
            done.map(|()| calls)
        };
        let fresh = mount("exit 2", "", &["noatime"]).unwrap();
        assert_eq!(
            fresh,
            [
                "mkfs.ext4 -F -m0 /dev/sda",
                "mount -t ext4 -o noatime,defaults /dev/sda /t"
            ]
        );
        let known = mount("echo DEVNAME=/dev/sda; echo TYPE=ext4", "ext4", &[]).unwrap();
        assert_eq!(
            known,
            ["fsck -a /dev/sda", "mount -t ext4 -o defaults /dev/sda /t"]
        );
        let read_only = mount("echo TYPE=xfs", "xfs", &["ro"]).unwrap();
        assert_eq!(read_only, ["mount -t xfs -o ro,defaults /dev/sda /t"]);
        let partitions = mount("echo PTTYPE=gpt", "ext4", &[]).unwrap();
        assert_eq!(partitions[0], "fsck -a /dev/sda", "never written over");
        assert!(
            mount("exit 2", "ext4", &["ro"])
                .unwrap_err()
                .contains("unformatted")
        );
        assert!(
            mount("exit 1", "ext4", &[])
                .unwrap_err()
                .contains("failed to get disk format")
        );
        fake.tool("fsck", "exit 4");
        assert!(
            mount("echo TYPE=ext4", "ext4", &[])
                .unwrap_err()
                .contains("could not correct")
        );
    }
}
