//! One check of one container: what a probe does, and what it found.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::net::TcpStream;

use super::grpc_health;
use super::http::{HttpGet, go_error, port};
use crate::cri::client::CriClient;
use crate::cri::expansion::expand;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// Success, with something that people should know.
    Warning(String),
    Failure(String),
    /// The check itself could not be made; says nothing about the container.
    Error(String),
}

/// Whom a probe asks.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub container: &'a Container,
    /// The runtime's id.
    pub container_id: &'a str,
    pub pod_ip: &'a str,
}

/// Checks once.
pub async fn check(runtime: &CriClient, probe: &Probe, target: Target<'_>) -> Outcome {
    let timeout = Duration::from_secs(
        u64::try_from(probe.timeout_seconds.unwrap_or(1))
            .unwrap_or(1)
            .max(1),
    );
    if let Some(action) = &probe.exec {
        exec(
            runtime,
            action.command.as_deref().unwrap_or_default(),
            target,
            timeout,
        )
        .await
    } else if let Some(action) = &probe.http_get {
        match HttpGet::new(action, target.container, target.pod_ip, "probe") {
            Ok(request) => http(&request, timeout).await,
            Err(error) => Outcome::Error(error.to_string()),
        }
    } else if let Some(action) = &probe.tcp_socket {
        let host = action
            .host
            .as_deref()
            .filter(|host| !host.is_empty())
            .unwrap_or(target.pod_ip);
        match port(&action.port, target.container) {
            Ok(port) => tcp(host, port, timeout).await,
            Err(error) => Outcome::Error(error.to_string()),
        }
    } else if let Some(action) = &probe.grpc {
        let service = action.service.as_deref().unwrap_or_default();
        match u16::try_from(action.port) {
            Ok(port) => grpc_health::check(target.pod_ip, port, service, timeout).await,
            Err(_) => Outcome::Error(format!("invalid port number: {}", action.port)),
        }
    } else {
        Outcome::Error(format!(
            "missing probe handler for {}",
            target.container.name
        ))
    }
}

/// Output is kept to so much.
const MAX_OUTPUT: usize = 10 * 1024;

async fn exec(
    runtime: &CriClient,
    command: &[String],
    target: Target<'_>,
    timeout: Duration,
) -> Outcome {
    // Only what the spec says literally is known here; the rest is the container's own.
    let env = target.container.env.as_deref().unwrap_or_default();
    let lookup = |name: &str| {
        env.iter()
            .find(|e| e.name == name)
            .map(|e| e.value.as_deref().unwrap_or_default())
    };
    let command: Vec<String> = command.iter().map(|word| expand(word, lookup)).collect();
    match runtime
        .exec_sync(target.container_id, &command, Some(timeout))
        .await
    {
        Ok(response) if response.exit_code == 0 => Outcome::Success,
        Ok(response) => {
            let mut output = response.stdout;
            output.extend_from_slice(&response.stderr);
            output.truncate(MAX_OUTPUT);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) if error.code == tonic::Code::DeadlineExceeded => Outcome::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            timeout.as_secs()
        )),
        Err(error) => Outcome::Error(error.to_string()),
    }
}

async fn http(request: &HttpGet, timeout: Duration) -> Outcome {
    match request.send(timeout).await {
        Err(error) => Outcome::Failure(error.to_string()),
        Ok(answer) => match answer.redirected_away {
            Some(_) => Outcome::Warning(format!(
                "Probe terminated redirects, Response body: {}",
                String::from_utf8_lossy(&answer.body)
            )),
            None if (200..400).contains(&answer.status) => Outcome::Success,
            None => Outcome::Failure(format!(
                "HTTP probe failed with statuscode: {}",
                answer.status
            )),
        },
    }
}

async fn tcp(host: &str, port: u16, timeout: Duration) -> Outcome {
    let address = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => {
            Outcome::Failure(format!("dial tcp {address}: connect: {}", go_error(&error)))
        }
        Err(_) => Outcome::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}
