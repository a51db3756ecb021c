//! Running `kubectl`: to its end, as a stream of lines, or at a terminal.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use crate::Cluster;
use crate::wait::LIMIT;

/// One `kubectl` command, to be run.
#[derive(Debug)]
#[must_use]
pub struct Kubectl {
    program: std::path::PathBuf,
    environment: Vec<(&'static str, std::path::PathBuf)>,
    arguments: Vec<String>,
    stdin: Option<String>,
}

/// What a command has printed and how it ended.
#[derive(Debug)]
pub struct Done {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, without the end's white space.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    command: String,
}

impl Kubectl {
    pub(crate) fn new(cluster: &Cluster, program: &str) -> Self {
        let home = cluster.path("kubectl-cache");
        Self {
            program: cluster.path("bin").join(program),
            environment: vec![
                ("KUBECONFIG", cluster.path("kubeconfig/admin.conf")),
                ("KUBECACHEDIR", home.clone()),
                // Where older versions keep what they discovered.
                ("HOME", home),
            ],
            arguments: Vec::new(),
            stdin: None,
        }
    }

    /// The same with another version of `kubectl`, such as `1.20`.
    pub fn version(mut self, version: &str) -> Self {
        self.program.set_file_name(format!("kubectl-{version}"));
        assert!(
            self.program.exists(),
            "{} is missing: deploy/up --old-kubectl",
            self.program.display()
        );
        self
    }

    /// Adds arguments, separated by spaces.
    pub fn words(self, words: &str) -> Self {
        let words: Vec<_> = words.split_whitespace().collect();
        self.args(words)
    }

    /// Adds arguments as they are.
    pub fn args<S: AsRef<str>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self
    }

    /// What the command reads.
    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = Some(text.to_owned());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Done {
        let command = self.to_string();
        self.finish(self.command(), command)
    }

    /// Runs it and returns what it printed.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[track_caller]
    pub fn ok(self) -> String {
        let done = self.run();
        assert!(done.code == Some(0), "{done}");
        done.stdout
    }

    /// Runs it and returns its error output.
    ///
    /// # Panics
    ///
    /// When it does not fail.
    #[track_caller]
    pub fn fails(self) -> String {
        let done = self.run();
        assert!(done.code != Some(0), "should have failed: {done}");
        done.stderr
    }

    /// Runs it at a terminal of its own (`-t` demands one), typing `input`.
    pub fn run_at_terminal(mut self, input: &str) -> Done {
        self.stdin = Some(input.to_owned());
        let command = self.to_string();
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--return", "--flush", "--command"])
            .arg(self.shell_line())
            .arg("/dev/null");
        script.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.finish(script, command)
    }

    /// Starts it and hands out its lines as they come.
    pub fn follow(self) -> Following {
        let command = self.to_string();
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Following {
            child,
            lines,
            seen: Vec::new(),
            command,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn finish(&self, mut command: Command, name: String) -> Done {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if self.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Some(text) = &self.stdin {
            // A program that ends without reading it all is free to.
            let _ = child
                .stdin
                .take()
                .expect("a pipe")
                .write_all(text.as_bytes());
        }
        let output = child.wait_with_output().expect("its output");
        Done {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout)
                .trim_end()
                .to_owned(),
            stderr: String::from_utf8_lossy(&output.stderr)
                .trim_end()
                .to_owned(),
            command: name,
        }
    }

    fn shell_line(&self) -> String {
        let mut line = format!("exec '{}'", self.program.display());
        for argument in &self.arguments {
            let _ = write!(line, " '{}'", argument.replace('\'', r"'\''"));
        }
        line
    }
}

impl std::fmt::Display for Kubectl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let program = self.program.file_name().unwrap_or_default().display();
        write!(formatter, "{program} {}", self.arguments.join(" "))
    }
}

impl Done {
    /// The standard output, or as an error what went wrong.
    pub fn success(self) -> Result<String, String> {
        if self.code == Some(0) {
            Ok(self.stdout)
        } else {
            Err(self.to_string())
        }
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            code,
            stdout,
            stderr,
            command,
        } = self;
        write!(
            formatter,
            "`{command}` ended with {code:?}\n{stderr}\n{stdout}"
        )
    }
}

/// A command that goes on printing; ended with the value.
#[derive(Debug)]
pub struct Following {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    command: String,
}

impl Following {
    /// The next line for which `wanted` holds; others are passed over.
    ///
    /// # Panics
    ///
    /// When the command ends or is silent for too long before that.
    #[track_caller]
    pub fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(error) => {
                    let how = if error == RecvTimeoutError::Timeout {
                        "is silent"
                    } else {
                        "has ended"
                    };
                    panic!(
                        "`{}` {how}; its lines so far:\n{}",
                        self.command,
                        self.seen.join("\n")
                    )
                }
            }
        }
    }

    /// All lines that have come, without waiting.
    pub fn so_far(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// Waits for the end of the command and returns the lines not yet read.
    pub fn rest(mut self) -> Vec<String> {
        let rest = self.lines.iter().collect();
        let _ = self.child.wait();
        rest
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
