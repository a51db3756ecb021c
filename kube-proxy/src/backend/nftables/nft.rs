//! Runs `nft -f -`. The only place of this backend that touches the system.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The `nft` program.
#[derive(Debug, Clone)]
pub struct Nft {
    program: std::path::PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("cannot run nft; install the nftables package, 1.0.1 or newer")]
    Run(#[source] std::io::Error),
    /// nothing of the transaction was done.
    #[error("nft refused the transaction: {0}")]
    Refused(String),
}

impl Default for Nft {
    fn default() -> Self {
        Self {
            program: "nft".into(),
        }
    }
}

impl Nft {
    /// Commits a script as one transaction.
    pub async fn run(&self, script: &str) -> Result<(), NftError> {
        let mut child = Command::new(&self.program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(NftError::Run)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A refusal may close the pipe early; the exit status tells the story.
            let _ = stdin.write_all(script.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(NftError::Run)?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        // The first lines name the error; the rest quotes the script.
        Err(NftError::Refused(
            text.lines().take(4).collect::<Vec<_>>().join(" | "),
        ))
    }
}
