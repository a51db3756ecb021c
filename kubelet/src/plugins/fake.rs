//! Plays plugins in tests: any gRPC service on a Unix socket.

use std::convert::Infallible;
use std::path::Path;

use grpc::plugins::registration::registration_server::{Registration, RegistrationServer};
use grpc::plugins::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Request, Response, Status};

/// Serves until it is dropped, and takes the socket away then.
pub struct Served {
    path: std::path::PathBuf,
    task: AbortHandle,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

pub fn serve<S>(path: &Path, service: S) -> Served
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let listener = UnixListenerStream::new(UnixListener::bind(path).unwrap());
    let server = tonic::transport::Server::builder().serve_with_incoming(service, listener);
    Served {
        path: path.to_owned(),
        task: tokio::spawn(server).abort_handle(),
    }
}

/// Tells what it is told.
pub struct Registrar {
    pub info: PluginInfo,
    pub told: mpsc::UnboundedSender<RegistrationStatus>,
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(self.info.clone()))
    }
    async fn notify_registration_status(
        &self,
        status: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let _ = self.told.send(status.into_inner());
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// Registers on `path` as a plugin of this kind and name; what the kubelet says is received.
pub fn register(
    path: &Path,
    kind: &str,
    name: &str,
    endpoint: &str,
    versions: &[&str],
) -> (Served, mpsc::UnboundedReceiver<RegistrationStatus>) {
    let (told, heard) = mpsc::unbounded_channel();
    let info = PluginInfo {
        r#type: kind.into(),
        name: name.into(),
        endpoint: endpoint.into(),
        supported_versions: versions.iter().map(|v| (*v).to_owned()).collect(),
    };
    let service = RegistrationServer::new(Registrar { info, told });
    (serve(path, service), heard)
}
