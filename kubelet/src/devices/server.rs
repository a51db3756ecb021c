//! Where plugins make themselves known: the kubelet's socket beside theirs, and `plugins_registry`
//! as for every other kind of plugin.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use grpc::plugins::devices as pb;
use grpc::plugins::devices::registration_server::{Registration, RegistrationServer};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::manager::Devices;
use crate::plugins::{Handler, Plugin};
use crate::pods::admission::is_extended;

const VERSION: &str = "v1beta1";
const SOCKET: &str = "kubelet.sock";

/// Takes sockets of plugins away that an earlier kubelet knew: they see that and register again.
fn clear(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(dir)?;
    for entry in fs::read_dir(dir)?.flatten() {
        let socket = fs::metadata(entry.path()).is_ok_and(|meta| meta.file_type().is_socket());
        if socket {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Serves registration until `stop`.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(devices: &Arc<Devices>, stop: CancellationToken) -> io::Result<()> {
    let dir = devices.dir();
    clear(dir)?;
    // People are told that sockets had better be elsewhere.
    fs::write(dir.join("DEPRECATION"), "")?;
    let listener = UnixListenerStream::new(UnixListener::bind(dir.join(SOCKET))?);
    let service = RegistrationServer::new(Registrar(devices.clone()));
    let server = tonic::transport::Server::builder().serve_with_incoming_shutdown(
        service,
        listener,
        stop.cancelled_owned(),
    );
    let devices = devices.clone();
    tokio::spawn(async move {
        if let Err(error) = server.await {
            warn!(%error, "device plugins cannot register any more");
            devices.fail(format!(
                "device registration error: device plugin registration gRPC server failed and no device plugins \
                 can register: {error}"
            ));
        }
    });
    Ok(())
}

struct Registrar(Arc<Devices>);

fn check(name: &str) -> Result<(), String> {
    match is_extended(name) {
        true => Ok(()),
        false => Err(format!("the ResourceName {name:?} is invalid")),
    }
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::Empty>, Status> {
        let request = request.into_inner();
        let resource = request.resource_name;
        let registrations = &self.0.metrics.resources.device_registrations;
        registrations.with_label_values(&[&resource]).inc();
        let registered = async {
            if request.version != VERSION {
                return Err(format!(
                    "requested API version {:?} is not supported by kubelet. Supported version is [{VERSION:?}]",
                    request.version
                ));
            }
            check(&resource)?;
            let socket = self.0.dir().join(&request.endpoint);
            self.0.connect(&resource, &socket.to_string_lossy()).await
        };
        if let Err(error) = registered.await {
            warn!(resource, error, "a device plugin is not taken");
            return Err(Status::unknown(error));
        }
        info!(
            resource,
            endpoint = request.endpoint,
            "a device plugin is there"
        );
        Ok(Response::new(pb::Empty {}))
    }
}

impl Handler for Arc<Devices> {
    fn validate(&self, plugin: &Plugin) -> Result<(), String> {
        if !plugin.versions.iter().any(|version| version == VERSION) {
            return Err(format!(
                "manager version, {VERSION}, is not among plugin supported versions [{}]",
                plugin.versions.join(" ")
            ));
        }
        check(&plugin.name).map_err(|why| format!("invalid name of device plugin socket: {why}"))
    }

    fn register<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, Result<(), String>> {
        self.connect(&plugin.name, &plugin.endpoint).boxed()
    }

    fn deregister(&self, plugin: &Plugin) {
        self.disconnect(&plugin.name);
    }
}
