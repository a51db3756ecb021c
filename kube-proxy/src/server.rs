//! Wires the proxy: configuration, client, informers, proxier, health and metrics ports.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::informer::{Event, Informers, Selection};
use client::{Client, Config};
use component::metrics::Registry;
use component::serving::{Body, Bound, Handler, Limits, full, handler};
use http::Response;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio_util::sync::CancellationToken;

use crate::backend::nftables::{self, Nft};
use crate::config::KubeProxyConfiguration;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::proxier::Proxier;
use crate::sysctl;

/// Services that another proxy serves or that need none carry these labels.
const OURS: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
/// The cluster autoscaler is about to remove the node.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

pub async fn serve(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    if options.cleanup {
        return Nft::default()
            .run(&nftables::cleanup())
            .await
            .context("cannot remove the rules");
    }
    let config = options.configuration()?;
    tracing::info!("effective configuration: {config:?}");
    let node = node_name(&config)?;
    let client = client(&options, &config)?;
    sysctl::apply(&config.conntrack, config.oom_score_adj);

    let registry = Registry::new();
    let health = Health::default();
    let proxier = Proxier::new(&node, health.clone(), Metrics::new(&registry)?);

    let informers = Informers::new(&client);
    let services = informers.select::<Service>(&Selection::labels(OURS));
    let slices = informers.select::<EndpointSlice>(&Selection::labels(OURS));
    let own_node = informers.select::<Node>(&Selection::name("", &node));
    proxier.follow(&services, &slices);
    follow_node(&own_node, &health);

    let ports = Ports { health, registry };
    ports.listen(&config, &stop).await?;
    informers.start(&stop);
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        // Half of what there is must not replace the rules of a predecessor.
        () = informers.wait_synced() => {}
    }
    tracing::info!("caches are synced; programming the rules of node {node}");
    let min_period = config
        .nftables
        .min_sync_period
        .map_or(Duration::from_secs(1), |p| p.get());
    let options = nftables::Options {
        masquerade_bit: config.nftables.masquerade_bit.unwrap_or(14),
        masquerade_all: config.nftables.masquerade_all,
        cluster_cidrs: config.cluster_cidrs()?,
        node_port_addresses: config.node_port_nets()?,
    };
    proxier.run(options, min_period, stop).await;
    Ok(())
}

fn node_name(config: &KubeProxyConfiguration) -> anyhow::Result<String> {
    let given = config.hostname_override.trim();
    let name = if given.is_empty() {
        let host = nix::unistd::gethostname().context("the host has no name")?;
        host.to_string_lossy().into_owned()
    } else {
        given.to_owned()
    };
    Ok(name.to_lowercase())
}

fn client(options: &Options, config: &KubeProxyConfiguration) -> anyhow::Result<Client> {
    let connection = &config.client_connection;
    let path = Some(connection.kubeconfig.as_str())
        .filter(|p| !p.is_empty())
        .map(Path::new);
    let master = Some(options.master.as_str()).filter(|m| !m.is_empty());
    let client = Config::load(path, master)
        .context(
            "no way to the API server: --config's clientConnection.kubeconfig or --kubeconfig",
        )?
        .user_agent("kube-proxy")
        .rate_limit(connection.qps, u32::try_from(connection.burst).unwrap_or(0));
    Ok(Client::new(client)?)
}

fn follow_node(node: &client::informer::Informer<Node>, health: &Health) {
    let health = health.clone();
    node.add_handler(move |event: &Event<Node>| {
        let leaving = event.current().is_some_and(|node| {
            let taints = node
                .spec
                .as_ref()
                .and_then(|s| s.taints.as_deref())
                .unwrap_or_default();
            node.metadata.deletion_timestamp.is_some()
                || taints.iter().any(|t| t.key == TO_BE_DELETED)
        });
        health.leaving(leaving);
    });
}

/// The plain HTTP ports: health for everybody, metrics on loopback by default.
struct Ports {
    health: Health,
    registry: Registry,
}

impl Ports {
    async fn listen(
        self,
        config: &KubeProxyConfiguration,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let health = self.health;
        let healthz = handler(move |request, _| {
            let path = request.uri().path();
            let response = match path {
                "/healthz" | "/livez" => health.respond(path, Timestamp::now()).map(full),
                _ => not_found(),
            };
            async move { response }
        });
        let registry = self.registry;
        let mode = config.mode.clone();
        let metrics = handler(move |request, _| {
            let response = match request.uri().path() {
                "/metrics" => {
                    let (body, content_type) = registry.render();
                    let mut response = Response::new(full(body));
                    let value = http::HeaderValue::from_static(content_type);
                    response.headers_mut().insert("content-type", value);
                    response
                }
                "/healthz" => Response::new(full("ok")),
                "/proxyMode" => Response::new(full(mode.clone())),
                _ => not_found(),
            };
            async move { response }
        });
        for (address, handler) in [
            (&config.healthz_bind_address, healthz),
            (&config.metrics_bind_address, metrics),
        ] {
            // An empty address turns the port off.
            if address.is_empty() {
                continue;
            }
            match bind(address, handler, stop).await {
                Ok(()) => {}
                Err(error) if config.bind_address_hard_fail => return Err(error),
                Err(error) => tracing::error!("{error:#}"),
            }
        }
        Ok(())
    }
}

fn not_found() -> Response<Body> {
    let mut response = Response::new(full("404 page not found\n"));
    *response.status_mut() = http::StatusCode::NOT_FOUND;
    response
}

async fn bind(address: &str, handler: Handler, stop: &CancellationToken) -> anyhow::Result<()> {
    let parsed: SocketAddr = address
        .parse()
        .with_context(|| format!("{address:?} is no address with a port"))?;
    let bound = Bound::new(parsed)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    tokio::spawn(bound.serve(None, Arc::clone(&handler), Limits::default(), stop.clone()));
    Ok(())
}
