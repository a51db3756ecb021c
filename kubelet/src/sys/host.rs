//! The node's own tools (`mount`, `iscsiadm`, `multipath`) and what its kernel shows below `/sys`,
//! `/dev` and `/proc`. Tests have a directory tree and tools of their own instead.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::mount::{self, MountEntry};

/// Why a tool has not done what it was to do.
#[derive(Debug, Error)]
pub enum ToolError {
    #[error("{0} is not installed on this node")]
    Missing(String),
    #[error("exit status {code}: {output}")]
    Failed { code: i32, output: String },
    #[error("it takes longer than {0:?}")]
    Late(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ToolError {
    /// The tool ran and ended with one of these codes.
    pub fn is(&self, codes: &[i32]) -> bool {
        matches!(self, Self::Failed { code, .. } if codes.contains(code))
    }
}

/// Where tools and files of the kernel are.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
    /// Where to look for tools instead of `PATH`.
    tools: Option<PathBuf>,
    /// Between two looks at what is to appear.
    pub pause: Duration,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            root: "/".into(),
            tools: None,
            pause: Duration::from_secs(1),
        }
    }
}

impl Host {
    #[cfg(test)]
    pub fn fake(root: &Path, tools: &Path) -> Self {
        Self {
            root: root.canonicalize().unwrap(),
            tools: Some(tools.to_owned()),
            pause: Duration::from_millis(1),
        }
    }

    /// Where a file of the node lies.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.root
            .join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// What a link of the node leads to, as the node names it.
    ///
    /// # Errors
    /// When it leads nowhere.
    pub fn resolve(&self, absolute: impl AsRef<Path>) -> io::Result<PathBuf> {
        let real = self.path(absolute).canonicalize()?;
        let inside = real
            .strip_prefix(&self.root)
            .map(|path| Path::new("/").join(path));
        Ok(inside.unwrap_or(real))
    }

    /// Names of what lies in a directory of the node, sorted; none if there is no such directory.
    pub fn names(&self, absolute: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(absolute))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// All mounts, the oldest first.
    ///
    /// # Errors
    /// When the mount table cannot be read.
    pub fn mounts(&self) -> io::Result<Vec<MountEntry>> {
        Ok(mount::entries(&fs::read_to_string(
            self.path("/proc/self/mountinfo"),
        )?))
    }

    /// Whether something is mounted right at `path`. The file system is not touched: its server may
    /// be gone.
    ///
    /// # Errors
    /// As [`Host::mounts`].
    pub fn is_mount_point(&self, path: &Path) -> io::Result<bool> {
        Ok(self.mounts()?.iter().any(|entry| entry.point == path))
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = match &self.tools {
            Some(tools) => {
                let mut command = Command::new(tools.join(program));
                command.env("ROOT", &self.root);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a tool to its end and returns what it said on both outputs. Blocks.
    ///
    /// # Errors
    /// When it is not there, or ends with another code than 0.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, ToolError> {
        let ran = self.command(program, arguments).output();
        let ran = ran.map_err(|error| missing(program, error))?;
        let mut output = String::from_utf8_lossy(&ran.stdout).into_owned();
        output.push_str(&String::from_utf8_lossy(&ran.stderr));
        finished(ran.status, output)
    }

    /// As [`Host::run`], but kills the tool when it takes too long.
    ///
    /// # Errors
    /// As [`Host::run`], and when it was killed.
    pub fn run_within(
        &self,
        time: Duration,
        program: &str,
        arguments: &[&str],
    ) -> Result<String, ToolError> {
        let mut command = self.command(program, arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| missing(program, error))?;
        let deadline = Instant::now() + time;
        loop {
            if let Some(status) = child.try_wait()? {
                let mut output = String::new();
                if let Some(mut said) = child.stderr.take() {
                    said.read_to_string(&mut output)?;
                }
                return finished(status, output);
            }
            if Instant::now() > deadline {
                // What hangs in the kernel dies once the kernel lets go of it; nobody waits for that.
                let _ = child.kill();
                return Err(ToolError::Late(time));
            }
            std::thread::sleep(self.pause.min(Duration::from_millis(50)));
        }
    }
}

fn missing(program: &str, error: io::Error) -> ToolError {
    match error.kind() {
        io::ErrorKind::NotFound => ToolError::Missing(program.to_owned()),
        _ => error.into(),
    }
}

fn finished(status: std::process::ExitStatus, output: String) -> Result<String, ToolError> {
    match status.code() {
        Some(0) => Ok(output),
        code => Err(ToolError::Failed {
            code: code.unwrap_or(-1),
            output,
        }),
    }
}

#[cfg(test)]
pub mod fake {
    //! A node of a directory tree, with tools that are scripts.

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    pub struct FakeHost {
        pub dir: tempfile::TempDir,
        pub host: Host,
    }

    /// Writes down what it was called with, and what is mounted where.
    const MOUNT: &str = r#"
for last; do :; done
eval "source=\${$(($# - 1))}"
case " $* " in *remount*) exit 0;; esac
number=$(stat -c %i "$ROOT$source" 2>/dev/null || echo 1)
case " $* " in *" -o bind"*) number=$(grep " $source " "$ROOT/proc/self/mountinfo" | head -1 | cut -d' ' -f3 | cut -d: -f2);; esac
echo "1 1 8:$number / $last rw - ext4 $source rw" >> "$ROOT/proc/self/mountinfo"
"#;
    const UMOUNT: &str = r#"
for last; do :; done
grep -v " / $last rw" "$ROOT/proc/self/mountinfo" > "$ROOT/new"
cat "$ROOT/new" > "$ROOT/proc/self/mountinfo"
"#;

    impl FakeHost {
        pub fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("tools")).unwrap();
            let host = Host::fake(dir.path(), &dir.path().join("tools"));
            let fake = Self { dir, host };
            fake.file("proc/self/mountinfo", "");
            fake.tool("mount", MOUNT);
            fake.tool("umount", UMOUNT);
            for program in ["fsck", "blockdev", "multipath", "mkfs.ext4"] {
                fake.tool(program, "");
            }
            fake
        }

        /// Installs a tool, which writes its name and arguments down first.
        pub fn tool(&self, name: &str, script: &str) {
            let path = self.dir.path().join("tools").join(name);
            let script = format!("#!/bin/sh\necho {name} \"$*\" >> \"$ROOT/calls\"\n{script}");
            // Under another name first: a script that is being written cannot be run.
            let new = path.with_extension("new");
            fs::write(&new, script).unwrap();
            fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
            fs::rename(new, path).unwrap();
        }

        pub fn file(&self, path: &str, text: &str) {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// A link to what is in the same tree.
        pub fn link(&self, path: &str, to: &str) {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(self.dir.path().join(to), path).unwrap();
        }

        /// What has been called since the last look, without the test's own directory.
        pub fn calls(&self) -> Vec<String> {
            let path = self.dir.path().join("calls");
            let calls = fs::read_to_string(&path).unwrap_or_default();
            let _ = fs::remove_file(path);
            let own = self
                .dir
                .path()
                .canonicalize()
                .unwrap()
                .display()
                .to_string();
            calls.lines().map(|line| line.replace(&own, "")).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeHost;
    use super::*;

    #[test]
    fn tools_run_or_say_why_not() {
        let fake = FakeHost::new();
        fake.tool("says", "echo out; echo err >&2; exit $1");
        assert_eq!(fake.host.run("says", &["0"]).unwrap(), "out\nerr\n");
        let failed = fake.host.run("says", &["5"]).unwrap_err();
        assert!(failed.is(&[4, 5]) && !failed.is(&[4]));
        assert_eq!(failed.to_string(), "exit status 5: out\nerr\n");
        let missing = fake.host.run("none", &[]).unwrap_err();
        assert!(matches!(missing, ToolError::Missing(_)));
        fake.tool("hangs", "exec sleep 1000");
        let late = fake.host.run_within(Duration::from_millis(1), "hangs", &[]);
        assert!(matches!(late, Err(ToolError::Late(_))));
        fake.host
            .run_within(Duration::from_secs(60), "says", &["0"])
            .unwrap();
        assert_eq!(fake.calls()[0], "says 0");
    }

    #[test]
    fn links_stay_on_the_node() {
        let fake = FakeHost::new();
        fake.file("dev/sda", "");
        fake.link("dev/disk/by-id/x", "dev/sda");
        assert_eq!(
            fake.host.resolve("/dev/disk/by-id/x").unwrap(),
            Path::new("/dev/sda")
        );
        assert_eq!(fake.host.names("/dev"), ["disk", "sda"]);
        assert!(fake.host.names("/none").is_empty());
    }
}
