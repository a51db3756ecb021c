//! The gRPC health check (grpc.health.v1), as far as a probe needs it: one unary call.

use std::time::Duration;

use bytes::Buf;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use super::check::Outcome;

const SERVING: u64 = 1;

/// Asks a server whether `service` is serving.
pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let authority = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let ask = async {
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            .and_then(|endpoint| {
                endpoint.user_agent(concat!("kube-probe/", env!("CARGO_PKG_VERSION")))
            })
            .map_err(|error| Outcome::Error(error.to_string()))?;
        let unreachable = || {
            Outcome::Failure(format!(
                "timeout: failed to connect service {authority:?} within {timeout:?}"
            ))
        };
        let channel = endpoint.connect().await.map_err(|_| unreachable())?;
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(|_| unreachable())?;
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        grpc.unary(Request::new(service.to_owned()), path, HealthCodec)
            .await
            .map_err(|status| refused(&status))
    };
    match tokio::time::timeout(timeout, ask).await {
        Err(_) => Outcome::Failure(format!(
            "timeout: health rpc did not complete within {timeout:?}"
        )),
        Ok(Err(outcome)) => outcome,
        Ok(Ok(response)) if response.get_ref() == &SERVING => Outcome::Success,
        Ok(Ok(response)) => {
            let word = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
            let status = usize::try_from(*response.get_ref())
                .ok()
                .and_then(|i| word.get(i))
                .unwrap_or(&"UNKNOWN");
            Outcome::Failure(format!("service unhealthy (responded with {status:?})"))
        }
    }
}

fn refused(status: &Status) -> Outcome {
    match status.code() {
        Code::Unimplemented => Outcome::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        )),
        Code::DeadlineExceeded => Outcome::Failure("timeout: health rpc did not complete".into()),
        _ => Outcome::Failure(format!(
            "error: health rpc probe failed: {}",
            status.message()
        )),
    }
}

/// Both messages have one field, number 1: the service's name, and the status.
struct HealthCodec;

impl Codec for HealthCodec {
    type Encode = String;
    type Decode = u64;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for HealthCodec {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, service: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        if !service.is_empty() {
            prost::encoding::string::encode(1, &service, buffer);
        }
        Ok(())
    }
}

impl Decoder for HealthCodec {
    type Item = u64;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<u64>, Status> {
        let malformed = |error: prost::DecodeError| Status::internal(error.to_string());
        let mut status = 0;
        while buffer.has_remaining() {
            let (tag, wire) = prost::encoding::decode_key(buffer).map_err(malformed)?;
            if tag == 1 {
                prost::encoding::uint64::merge(wire, &mut status, buffer, Default::default())
                    .map_err(malformed)?;
            } else {
                prost::encoding::skip_field(wire, tag, buffer, Default::default())
                    .map_err(malformed)?;
            }
        }
        Ok(Some(status))
    }
}
