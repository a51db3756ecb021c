//! Running a plugin: a request on its standard input, a response on its standard output.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use component::flags::GoDuration;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::config::Variable;

/// Upstream's, for all plugins.
const TIMEOUT: Duration = Duration::from_secs(60);

/// `CredentialProviderRequest`
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    kind: &'static str,
    api_version: String,
    pub image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account_token: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub service_account_annotations: BTreeMap<String, String>,
}

/// `CredentialProviderResponse`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Response {
    kind: String,
    #[serde(rename = "apiVersion")]
    _api_version: String,
    /// What the credentials are kept for: `Image`, `Registry` or `Global`.
    #[serde(default)]
    pub cache_key_type: String,
    #[serde(default)]
    pub cache_duration: Option<GoDuration>,
    /// By the images that they are for.
    #[serde(default)]
    pub auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Auth {
    /// Never shows a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Auth({}, …)", self.username)
    }
}

/// Why a plugin gave nothing. No response's content is in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExecError {
    #[error("error execing credential provider plugin {name} for image {image}: {why}: {stderr}")]
    Run {
        name: String,
        image: String,
        why: String,
        stderr: String,
    },
    #[error("error reading GVK from response: {0}")]
    Unreadable(String),
    #[error(
        "apiVersion from credential plugin response did not match expected apiVersion:{wanted}, actual apiVersion:{told}"
    )]
    Version { wanted: String, told: String },
    #[error("error decoding credential provider plugin response from stdout")]
    Response,
}

/// A plugin's program.
#[derive(Debug, Clone)]
pub struct Program {
    pub name: String,
    pub path: PathBuf,
    pub api_version: String,
    pub args: Vec<String>,
    pub env: Vec<Variable>,
}

impl Program {
    /// A request as this plugin reads it, about an image alone.
    pub fn request(&self, image: &str) -> Request {
        Request {
            kind: "CredentialProviderRequest",
            api_version: self.api_version.clone(),
            image: image.to_owned(),
            ..Request::default()
        }
    }

    /// # Errors
    /// When it does not run, does not end well within a minute, or says what is no response.
    pub async fn run(&self, request: Request) -> Result<Response, ExecError> {
        let failed = |why: String, stderr: String| ExecError::Run {
            name: self.name.clone(),
            image: request.image.clone(),
            why,
            stderr,
        };
        let mut text = serde_json::to_vec(&request).unwrap_or_default();
        text.push(b'\n');
        let mut command = Command::new(&self.path);
        command.args(&self.args);
        command.envs(self.env.iter().map(|v| (&v.name, &v.value)));
        let piped = || Stdio::piped();
        command.stdin(piped()).stdout(piped()).stderr(piped());
        command.kill_on_drop(true);
        let running = async {
            let mut child = command.spawn()?;
            let input = child.stdin.take();
            let ask = async {
                // One that reads nothing may answer all the same.
                if let Some(mut input) = input {
                    let _ = input.write_all(&text).await;
                }
            };
            let (output, ()) = tokio::join!(child.wait_with_output(), ask);
            output
        };
        let output = tokio::time::timeout(TIMEOUT, running).await;
        let output = output
            .map_err(|_| failed("context deadline exceeded".into(), String::new()))?
            .map_err(|error| failed(error.to_string(), String::new()))?;
        if !output.status.success() {
            // As Go says it: `exit status 1`.
            let why = output
                .status
                .to_string()
                .replace("exit status: ", "exit status ");
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(failed(why, stderr));
        }
        decode(&output.stdout, &self.api_version)
    }
}

/// Pure.
fn decode(text: &[u8], wanted: &str) -> Result<Response, ExecError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        #[serde(default)]
        api_version: String,
    }
    let told: Version = serde_json::from_slice(text).map_err(|error| {
        // Where it is, not what is there.
        let at = format!("line {}, column {}", error.line(), error.column());
        ExecError::Unreadable(format!("it is no JSON object at {at}"))
    })?;
    if told.api_version != wanted {
        return Err(ExecError::Version {
            wanted: wanted.to_owned(),
            told: told.api_version,
        });
    }
    let response: Response = serde_json::from_slice(text).map_err(|_| ExecError::Response)?;
    match response.kind == "CredentialProviderResponse" {
        true => Ok(response),
        false => Err(ExecError::Response),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::V1;
    use super::*;

    fn program(script: &str) -> Program {
        Program {
            name: "p".into(),
            path: "/bin/sh".into(),
            api_version: V1.into(),
            args: vec!["-c".into(), script.into()],
            env: vec![Variable {
                name: "WHO".into(),
                value: "me".into(),
            }],
        }
    }

    async fn ask(program: &Program) -> Result<Response, ExecError> {
        program.run(program.request("a.io/x")).await
    }

    #[tokio::test]
    async fn a_plugin_is_asked() {
        let script = format!(
            r#"read line; want='{{"kind":"CredentialProviderRequest","apiVersion":"{V1}","image":"a.io/x"}}'
            [ "$line" = "$want" ] || exit 3
            echo '{{"kind":"CredentialProviderResponse","apiVersion":"{V1}","cacheKeyType":"Image","cacheDuration":"5m",
            "auth":{{"*.io":{{"username":"'$WHO'","password":"p"}}}}}}'"#
        );
        let response = ask(&program(&script)).await.unwrap();
        assert_eq!(response.cache_key_type, "Image");
        assert_eq!(response.cache_duration, Some(GoDuration::from_secs(300)));
        assert_eq!(response.auth.unwrap()["*.io"].username, "me");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_without_secrets() {
        let error = ask(&program("echo no >&2; exit 1")).await;
        assert_eq!(
            error.unwrap_err().to_string(),
            "error execing credential provider plugin p for image a.io/x: exit status 1: no\n"
        );
        let other = program(r#"echo '{"kind":"x","apiVersion":"v9"}'"#);
        let error = ask(&other).await.unwrap_err().to_string();
        assert!(error.ends_with("actual apiVersion:v9"), "{error}");
        let secret = format!(r#"echo '{{"kind":"x","apiVersion":"{V1}","s3cret":1}}'"#);
        let error = ask(&program(&secret)).await.unwrap_err();
        assert!(matches!(error, ExecError::Response));
        let error = ask(&program("echo s3cret")).await.unwrap_err();
        assert!(!error.to_string().contains("s3cret"));
    }
}
