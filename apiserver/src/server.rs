//! The composition of kube-apiserver: options in, a running server out. Only this file
//! knows how the rooms fit together.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use component::files::Changes;
use component::metrics::{Registry as Metrics, Slis};
use component::serving::{Bound, Limits, ServingCertificate, TlsFiles, TlsOptions, handler};
use component::zpages::ZPages;
use ipnet::IpNet;
use prometheus::IntCounter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::authn::Authenticator;
use crate::authn::oidc_discovery::{self, Documents};
use crate::authn::token_issuer::TokenIssuer;
use crate::authz::Authorizer;
use crate::backends::{Backends, Caches, Other};
use crate::controlplane::{
    Authentication, ControlPlane, LeadershipTimes, Local, MasterLeases, RequestHeader,
};
use crate::discovery::{self, Addresses, Discovery};
use crate::health::Health;
use crate::http::body;
use crate::http::chain::{Chain, Connection};
use crate::http::context::RequestContext;
use crate::http::impersonation::Modes;
use crate::http::in_flight::InFlight;
use crate::http::metrics::Metrics as RequestMetrics;
use crate::http::negotiate;
use crate::http::paths::{Mount, NonResource};
use crate::http::stop::Stop;
use crate::http::verbs::{self, Endpoints};
use crate::lookup::Lookup;
use crate::openapi::OpenApi;
use crate::options::{
    AdmissionOptions, ApiOptions, AuthenticationOptions, AuthorizationOptions, KubeletOptions,
    Options, ServiceOptions, ServingOptions,
};
use crate::reader::{self, Reader};
use crate::registry::services::metrics::Metrics as ServiceMetrics;
use crate::registry::services::repair;
use crate::registry::store::{Env, Store};
use crate::registry::{Places, Registry, reviews, special};
use crate::{authn, authz, proxy};

/// Uses of tokens that are kept in secrets, waiting to be noted. Each is noted once a day.
const USED_SECRETS: usize = 64;
/// How often changed CA files are noticed.
const CA_RELOAD_INTERVAL: std::time::Duration = std::time::Duration::from_secs(60);

/// Starts everything and serves until `stop`.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    tracing::info!(
        version = component::version::GIT_VERSION,
        "starting kube-apiserver"
    );
    tracing::debug!(?options, "effective options");
    options.validate()?;
    let Options {
        etcd,
        serving,
        authentication,
        authorization,
        admission,
        flags,
        services,
        kubelet,
        api,
        tuning,
        unsupported,
        logs: _,
    } = options;
    let refused = unsupported.given();
    if !refused.is_empty() {
        bail!("not supported yet: {}", refused.join(", "));
    }
    let metrics = Arc::new(Metrics::new());
    metrics.disable(tuning.disabled_metrics.0);
    let Backends {
        main,
        others,
        keys,
        media,
        members,
        probes,
        tasks,
    } = Backends::new(&etcd, &metrics)?;
    tasks.into_iter().for_each(|task| drop(tokio::spawn(task)));
    let caches: Caches = std::iter::once(&main)
        .chain(others.iter().map(|other| &other.backend))
        .map(|backend| backend.cache.clone())
        .collect();

    let reader = Arc::new(Reader::default());
    let lookup: Arc<dyn Lookup> = reader.clone();
    let clock: authn::Clock = Arc::new(jiff::Timestamp::now);
    let (used, used_secrets) = mpsc::channel(USED_SECRETS);
    let authenticator = authenticator(&authentication, &lookup, &clock, &metrics, used)?;
    tokio::spawn({
        let authenticator = authenticator.clone();
        async move {
            let mut changes = Changes::of(authenticator.ca_files(), CA_RELOAD_INTERVAL);
            loop {
                changes.next().await;
                authenticator.refresh();
            }
        }
    });
    let AuthorizationOptions { authorization_mode } = authorization;
    api.feature_gates.check()?;
    let modes = authz::Mode::parse_list(&authorization_mode.0)?;
    let graph_actions = authz::graph_actions()?;
    metrics.register(graph_actions.clone());
    let authorizer = Arc::new(authz::build(
        &modes,
        &api.feature_gates,
        &decisions(&metrics)?,
        &graph_actions,
    ));

    let service_ranges = services.ranges()?;
    let ServiceOptions {
        service_cluster_ip_range: _,
        service_node_port_range,
        kubernetes_service_node_port,
        endpoint_reconciler_type,
    } = services;
    let KubeletOptions {
        kubelet_client_certificate,
        kubelet_client_key,
        kubelet_certificate_authority,
        kubelet_preferred_address_types,
        // A kubelet that does not answer is noticed by the request's own deadline.
        kubelet_timeout: _,
    } = kubelet;
    let kubelet = proxy::Options {
        files: proxy::Files {
            certificate: kubelet_client_certificate,
            key: kubelet_client_key,
            ca: kubelet_certificate_authority,
        },
        address_types: kubelet_preferred_address_types.0,
    };
    let ApiOptions {
        runtime_config,
        feature_gates: gates,
        proxy_client_cert_file: _,
        proxy_client_key_file: _,
        enable_aggregator_routing: _,
    } = api;
    metrics.report_features(&gates);
    let deps = admission::Deps {
        lookup: lookup.clone(),
        authorizer: authorizer.clone(),
        clock: clock.clone(),
        random: Arc::new(rand::random::<u64>),
        not_ready_toleration_seconds: admission.default_not_ready_toleration_seconds,
        unreachable_toleration_seconds: admission.default_unreachable_toleration_seconds,
        quotas: reader.clone(),
        configuration: match &admission.admission_control_config_file {
            Some(path) if path.as_os_str().is_empty() => admission::Configuration::default(),
            Some(path) => admission::Configuration::load(path)?,
            None => admission::Configuration::default(),
        },
        gates: gates.clone(),
        metrics: Metrics::clone(&metrics),
    };
    let env = Arc::new(Env {
        storage: main.storage.clone(),
        keys: keys.clone(),
        media,
        collection_workers: usize::try_from(tuning.delete_collection_workers)
            .unwrap_or_default()
            .max(1),
        primary_family: match service_ranges.first() {
            Some(IpNet::V6(_)) => "IPv6",
            _ => "IPv4",
        },
        admission: Arc::new(admission::Admission::new(
            plugins(&admission, &deps, &authorizer)?,
            &metrics,
        )),
        now: jiff::Timestamp::now,
        random: rand::random,
    });
    let mut places = Places::new(main.cache.clone(), env.clone());
    for Other { resources, backend } in &others {
        places.elsewhere(resources, &backend.cache, &backend.storage);
    }
    let versions = discovery::served(&runtime_config.0, |gate| gates.enabled(gate))?;
    let strategies = special::strategies(etcd.event_ttl.get());
    let registry = Arc::new(Registry::new(&versions, &places, strategies, &gates));
    for (group, plural) in others.iter().flat_map(|other| &other.resources) {
        if plural != "*" && registry.store(group, plural).is_none() {
            tracing::warn!(
                group,
                plural,
                "--etcd-servers-overrides: not a stored resource"
            );
        }
    }
    reader.connect(registry.clone());
    let allocators = special::allocate_for_services(
        &registry,
        &env,
        service_ranges.clone(),
        service_node_port_range,
        ServiceMetrics::new(metrics.inner())?,
    )?;
    let judge: Arc<dyn Authorizer> = authorizer.clone();
    special::guard_device_claims(&registry, &lookup, &judge, &gates);
    special::guard_pod_certificates(&registry, &judge);
    caches.run();
    for observer in authorizer.observers() {
        tokio::spawn(reader::feed(registry.clone(), observer));
    }

    let external = serving
        .external_hostname
        .clone()
        .or(serving.advertise_address.map(|a| a.to_string()))
        .unwrap_or_else(|| serving.bind_address.to_string());
    let addresses = Addresses {
        external: format!("{external}:{}", serving.secure_port),
        internal: Vec::new(),
    };
    let asked: (Arc<dyn Authenticator>, Arc<dyn Authorizer>) =
        (authenticator.clone(), authorizer.clone());
    let tokens = token_issuer(&authentication, &clock)?;
    let stores = proxy::Stores {
        pods: store(&registry, "pods")?.clone(),
        nodes: store(&registry, "nodes")?.clone(),
        services: store(&registry, "services")?.clone(),
        endpoints: store(&registry, "endpoints")?.clone(),
    };
    let kubelets = Arc::new(proxy::Kubelets::new(stores.nodes.clone(), kubelet)?);
    let mut endpoints = Endpoints {
        rest: special::endpoints(&registry, tokens, &lookup)?,
        connect: proxy::endpoints(
            &stores,
            &kubelets,
            &asked.1,
            &gates,
            proxy::Metrics::new(metrics.inner())?,
        ),
    };
    if let Some(resource) = registry.resource("", "v1", "componentstatuses") {
        let statuses = proxy::ComponentStatuses::new(resource, members);
        let key = ("", "componentstatuses", "");
        endpoints.connect.insert(key, Arc::new(statuses));
    }
    endpoints.rest.extend(reviews::all(&asked.0, &asked.1));
    let slis = Slis::new()?;
    let healthy = Health::new(&slis, serving.livez_grace_period.get());
    for (i, probe) in probes.into_iter().enumerate() {
        let (name, readiness) = match i.checked_sub(1) {
            None => ("etcd".to_owned(), "etcd-readiness".to_owned()),
            Some(i) => (
                format!("etcd-override-{i}"),
                format!("etcd-override-readiness-{i}"),
            ),
        };
        let health = probe.health;
        healthy.always("etcd", &name, move || health.check());
        healthy
            .readyz
            .add_to("etcd-readiness", readiness, move || probe.readiness.check());
    }
    let filled = {
        let caches = caches.clone();
        move || match caches.are_filled() {
            false => Err("the watch cache is being filled".to_owned()),
            true => Ok(()),
        }
    };
    healthy.readyz.add("informer-sync", filled);
    for name in ["generic-apiserver-start-informers", "storage-readiness"] {
        let (caches, step) = (caches.clone(), healthy.hook(name));
        tokio::spawn(async move {
            caches.synced().await;
            step.done();
        });
    }
    let advertise = serving.advertise_address.unwrap_or(serving.bind_address);
    let peer = serving.peer_advertise_ip.zip(serving.peer_advertise_port);
    let control_plane = ControlPlane {
        local: Arc::new(Local::new(registry.clone())),
        caches: caches.clone(),
        leases: MasterLeases {
            storage: main.storage.clone(),
            keys,
            endpoints: store(&registry, "endpoints")?.resource,
        },
        advertise,
        secure_port: serving.secure_port,
        peer: peer.unwrap_or((advertise, serving.secure_port)).into(),
        service_ranges,
        service_node_port: kubernetes_service_node_port,
        reconcile_endpoints: endpoint_reconciler_type != "none",
        authentication: published(&authenticator),
        bootstrap_rbac: authorizer.rbac().is_some(),
        gates: gates.clone(),
        leadership: LeadershipTimes {
            lease_duration: tuning.coordinated_leadership_lease_duration.get(),
            renew_deadline: tuning.coordinated_leadership_renew_deadline.get(),
            retry_period: tuning.coordinated_leadership_retry_period.get(),
        },
        hostname: hostname(),
        used_secrets,
    };
    let repaired = healthy.hook("start-service-ip-repair-controllers");
    let left = control_plane.start(&healthy, stop.clone());
    {
        let stop = stop.clone();
        healthy
            .readyz
            .add("shutdown", move || match stop.is_cancelled() {
                true => Err("process is shutting down".to_owned()),
                false => Ok(()),
            });
    }
    tokio::spawn({
        let services = store(&registry, "services")?.clone();
        async move {
            caches.synced().await;
            let counted = allocators.addresses.clone();
            tokio::spawn(async move { counted.count_for_ever().await });
            repair(services, allocators.addresses, allocators.ports, repaired).await;
        }
    });
    let mut mounts = vec![openapi(OpenApi::new(
        versions.clone(),
        jiff::Timestamp::now,
    ))];
    mounts.extend(issuer(&authentication, &addresses.external, &authenticator));
    mounts.push(documents(Discovery::new(versions, addresses)));
    let request_metrics = Arc::new(RequestMetrics::new(metrics.inner())?);
    let peaks = request_metrics.clone();
    tokio::spawn(async move { peaks.run().await });
    let chain = Arc::new(Chain {
        registry,
        env,
        endpoints: Arc::new(endpoints),
        paths: Arc::new(NonResource {
            pages: ZPages::new(
                "apiserver",
                &gates,
                &flags,
                &[
                    "/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version",
                ],
            ),
            slis,
            health: healthy,
            metrics: metrics.clone(),
            mounts,
        }),
        authenticator,
        authorizer,
        impersonation: Modes::new(&gates),
        in_flight: InFlight::new(
            serving.max_requests_inflight,
            serving.max_mutating_requests_inflight,
        ),
        request_timeout: serving.request_timeout.get(),
        min_watch: std::time::Duration::from_secs(serving.min_request_timeout),
        closes_on_nobody: gates.enabled("UnauthenticatedHTTP2DOSMitigation"),
        goaway_chance: tuning.goaway_chance,
        metrics: request_metrics,
        fan_out: Arc::default(),
        profiling: tuning.profiling,
        hsts: serving.hsts()?,
        random: rand::random,
        stop: Arc::new(Stop::new(tuning.shutdown_send_retry_after)),
    });
    let handshake_errors = IntCounter::new(
        "apiserver_tls_handshake_errors_total",
        "Connections that ended in the TLS handshake.",
    )?;
    metrics.register(handshake_errors.clone());
    serve(serving, &authentication, chain, handshake_errors, stop).await?;
    left.await;
    Ok(())
}

/// Which authorizer let requests in.
fn decisions(metrics: &Metrics) -> anyhow::Result<prometheus::IntCounterVec> {
    let decisions = prometheus::IntCounterVec::new(
        prometheus::Opts::new(
            "apiserver_authorization_decisions_total",
            "Decisions of authorizers, by their type and name.",
        ),
        &["type", "name", "decision"],
    )?;
    metrics.register(decisions.clone());
    Ok(decisions)
}

/// A store of the core group.
fn store<'a>(registry: &'a Registry, plural: &str) -> anyhow::Result<&'a Arc<Store>> {
    registry
        .store("", plural)
        .with_context(|| format!("{plural} must be served"))
}

/// The admission chain of the flags.
fn plugins(
    options: &AdmissionOptions,
    deps: &admission::Deps,
    authz: &Arc<authz::Authz>,
) -> anyhow::Result<Vec<Arc<dyn admission::Plugin>>> {
    let AdmissionOptions {
        enable_admission_plugins,
        disable_admission_plugins,
        admission_control,
        // Read where the plugins' dependencies are put together.
        admission_control_config_file: _,
        default_not_ready_toleration_seconds: _,
        default_unreachable_toleration_seconds: _,
        allow_privileged,
    } = options;
    let enable: Vec<&String> = enable_admission_plugins
        .0
        .iter()
        .chain(&admission_control.0)
        .collect();
    let disable: Vec<&String> = disable_admission_plugins.0.iter().collect();
    let mut plugins = admission::chain(&enable, &disable, deps)?;
    plugins.insert(0, Arc::new(admission::RbacEscalation(authz.clone())));
    if !allow_privileged {
        plugins.insert(0, Arc::new(admission::NoPrivileged));
    }
    Ok(plugins)
}

/// What aggregated servers are told of authentication.
fn published(authenticator: &authn::Authn) -> Authentication {
    let text = |pem: Vec<u8>| String::from_utf8_lossy(&pem).into_owned();
    Authentication {
        client_ca: authenticator.client_ca_pem().map(text),
        request_header: authenticator
            .request_header()
            .map(|(ca, headers)| RequestHeader {
                ca: text(ca),
                allowed_names: headers.allowed_names.clone(),
                extra_prefixes: headers.extra_prefixes.clone(),
                group: headers.group.clone(),
                uid: headers.uid.clone(),
                username: headers.username.clone(),
            }),
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "localhost".to_owned())
}

/// Issues service account tokens.
fn token_issuer(
    options: &AuthenticationOptions,
    clock: &authn::Clock,
) -> anyhow::Result<Arc<TokenIssuer>> {
    let file = (options.service_account_signing_key_file.as_ref())
        .context("--service-account-signing-key-file is required to sign tokens")?;
    let pem = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let issuer = options
        .service_account_issuer
        .first()
        .cloned()
        .context("--service-account-issuer is required to sign tokens")?;
    let audiences = match options.api_audiences.0.as_slice() {
        [] => options.service_account_issuer.clone(),
        given => given.to_vec(),
    };
    Ok(Arc::new(TokenIssuer {
        key: authn::keys::SigningKey::from_pem(&pem)
            .with_context(|| format!("the key in {}", file.display()))?,
        issuer,
        audiences,
        max_expiration: options.service_account_max_token_expiration.get().as_secs() as i64,
        extend_expiration: options.service_account_extend_token_expiration,
        clock: clock.clone(),
        new_uuid: Arc::new(|| uuid::Uuid::new_v4().to_string()),
    }))
}

/// Serves discovery documents.
fn documents(discovery: Discovery) -> Mount {
    let paths = discovery.paths();
    let serve = move |request: &RequestContext| {
        // The lists of groups are there for any method; upstream's router has the rest.
        let any_method = request.info.path.starts_with("/apis")
            && request.info.path.trim_matches('/').matches('/').count() < 2;
        if request.method != http::Method::GET && !any_method {
            return None;
        }
        let found = discovery.get(&request.info.path, &request.headers, request.peer)?;
        Some(match found {
            Ok(response) => response.map(body::full),
            Err(status) => body::status(&status, &request.headers, false),
        })
    };
    Mount {
        paths,
        serve: Box::new(serve),
    }
}

/// Serves OpenAPI documents.
fn openapi(openapi: OpenApi) -> Mount {
    let paths = ["/openapi/v2", "/openapi/v3", "/openapi/v3/"];
    let serve = move |request: &RequestContext| {
        let query = request.uri.query().unwrap_or_default();
        let found = openapi.get(&request.info.path, query, &request.headers)?;
        // As upstream: the one large document is compressed, those of v3 are not.
        let threshold = match request.info.path.as_str() {
            "/openapi/v2" => 0,
            _ => usize::MAX,
        };
        Some(body::compressed(found, &request.headers, threshold))
    };
    Mount {
        paths: paths.map(str::to_owned).into(),
        serve: Box::new(serve),
    }
}

/// Serves what others need to verify service account tokens, when the issuer is a URL under
/// which it can be found.
fn issuer(
    options: &AuthenticationOptions,
    external: &str,
    authenticator: &authn::Authn,
) -> Option<Mount> {
    let issuer = options.service_account_issuer.first()?;
    let jwks_uri = options.service_account_jwks_uri.as_deref().unwrap_or("");
    let keys = authenticator.service_account_keys();
    let documents = match Documents::render(issuer, jwks_uri, external, keys) {
        Ok(documents) => documents,
        Err(error) => {
            tracing::warn!(%error, "not serving the service account issuer's documents");
            return None;
        }
    };
    let documents = [
        (
            oidc_discovery::CONFIGURATION_PATH,
            oidc_discovery::CONFIGURATION_TYPE,
            bytes::Bytes::from(documents.configuration),
        ),
        (
            oidc_discovery::JWKS_PATH,
            oidc_discovery::JWKS_TYPE,
            bytes::Bytes::from(documents.jwks),
        ),
    ];
    let paths = documents.iter().map(|(path, ..)| (*path).to_owned());
    let paths = paths.collect();
    let serve = move |request: &RequestContext| {
        let path = request.info.path.trim_end_matches('/');
        let (_, content_type, document) = documents.iter().find(|(p, ..)| *p == path)?;
        if request.method != http::Method::GET {
            let status = verbs::method_not_allowed();
            return Some(body::status(&status, &request.headers, false));
        }
        if let Err(status) = negotiate::json_only(&request.headers) {
            return Some(body::status(&status, &request.headers, false));
        }
        let mut response = http::Response::new(body::full(document.clone()));
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, body::value(content_type));
        headers.insert(
            http::header::CACHE_CONTROL,
            body::value(oidc_discovery::CACHE_CONTROL),
        );
        Some(response)
    };
    Some(Mount {
        paths,
        serve: Box::new(serve),
    })
}

fn authenticator(
    options: &AuthenticationOptions,
    lookup: &Arc<dyn Lookup>,
    clock: &authn::Clock,
    metrics: &Metrics,
    used: mpsc::Sender<authn::UsedSecret>,
) -> anyhow::Result<Arc<authn::Authn>> {
    let AuthenticationOptions {
        anonymous_auth,
        client_ca_file,
        token_auth_file,
        enable_bootstrap_token_auth,
        requestheader_client_ca_file,
        requestheader_allowed_names,
        requestheader_username_headers,
        requestheader_group_headers,
        requestheader_uid_headers,
        requestheader_extra_headers_prefix,
        api_audiences,
        service_account_issuer,
        service_account_key_file,
        service_account_signing_key_file: _,
        service_account_jwks_uri: _,
        service_account_lookup,
        service_account_extend_token_expiration: _,
        service_account_max_token_expiration: _,
    } = options;
    let request_header = requestheader_client_ca_file.clone().map(|file| {
        let headers = authn::request_header::Headers {
            allowed_names: requestheader_allowed_names.0.clone(),
            username: requestheader_username_headers.0.clone(),
            uid: requestheader_uid_headers.0.clone(),
            group: requestheader_group_headers.0.clone(),
            extra_prefixes: requestheader_extra_headers_prefix.0.clone(),
        };
        (file, headers)
    });
    let config = authn::Config {
        client_ca_file: client_ca_file.clone(),
        request_header,
        token_auth_file: token_auth_file.clone(),
        service_accounts: authn::ServiceAccounts {
            key_files: service_account_key_file.iter().map(Into::into).collect(),
            issuers: service_account_issuer.clone(),
            api_audiences: api_audiences.0.clone(),
            lookup: *service_account_lookup,
            used: Some(used),
        },
        bootstrap_tokens: *enable_bootstrap_token_auth,
        anonymous: *anonymous_auth,
    };
    Ok(authn::build(
        config,
        lookup.clone(),
        clock.clone(),
        rand::random(),
        authn::Metrics::new(metrics.inner())?,
    )?)
}

async fn serve(
    options: ServingOptions,
    authentication: &AuthenticationOptions,
    chain: Arc<Chain>,
    handshake_errors: IntCounter,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let policy = options.tls_policy()?;
    let ServingOptions {
        bind_address,
        secure_port,
        advertise_address: _,
        peer_advertise_ip: _,
        peer_advertise_port: _,
        external_hostname: _,
        cert_dir,
        tls_cert_file,
        tls_private_key_file,
        tls_sni_cert_key,
        tls_min_version: _,
        tls_cipher_suites: _,
        tls_curve_preferences: _,
        disable_http2_serving: _,
        strict_transport_security_directives: _,
        http2_max_streams_per_connection,
        max_requests_inflight: _,
        max_mutating_requests_inflight: _,
        request_timeout,
        min_request_timeout: _,
        shutdown_delay_duration,
        shutdown_watch_termination_grace_period: _,
        livez_grace_period: _,
    } = options;
    let default = match (tls_cert_file, tls_private_key_file) {
        (Some(certificate), Some(key)) => TlsFiles { certificate, key },
        (None, None) => TlsFiles::self_signed(&cert_dir, "apiserver", &[])?,
        _ => bail!("--tls-cert-file and --tls-private-key-file go together"),
    };
    let by_name = tls_sni_cert_key
        .iter()
        .map(|pair| {
            let files = pair.split(':').next().unwrap_or_default();
            let (certificate, key) = files
                .split_once(',')
                .with_context(|| format!("--tls-sni-cert-key: {pair:?} is no pair of files"))?;
            Ok(TlsFiles {
                certificate: certificate.into(),
                key: key.into(),
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let tls = ServingCertificate::load(TlsOptions {
        default: Some(default.into()),
        by_name,
        client_ca: authentication
            .client_ca_file
            .iter()
            .chain(&authentication.requestheader_client_ca_file)
            .cloned()
            .collect(),
        verifies_later: true,
        policy,
        ..TlsOptions::default()
    })?;
    let bound = Bound::new(SocketAddr::new(bind_address, secure_port))
        .await
        .with_context(|| format!("listening on {bind_address}:{secure_port}"))?;
    tracing::info!(address = %bound.address(), "Serving securely");
    let limits = Limits {
        http2_streams: match http2_max_streams_per_connection {
            0 => Limits::default().http2_streams,
            n => n,
        },
        drain_timeout: request_timeout.get(),
        ..Limits::default()
    };
    let bound = bound.count_handshake_errors(handshake_errors);
    let last = chain.stop.clone();
    let handler = handler(move |request, peer| {
        let connection = Connection {
            certificates: peer.certificates,
            address: peer.address.ip(),
        };
        chain.clone().serve(connection, request)
    });
    // In order: /readyz fails, clients have the delay to go elsewhere, watches end, nobody has to
    // be turned away any more, no new connections, the rest finishes.
    let drained = CancellationToken::new();
    tokio::spawn({
        let drained = drained.clone();
        async move {
            stop.cancelled().await;
            tokio::time::sleep(shutdown_delay_duration.get()).await;
            last.begin().await;
            drained.cancel();
        }
    });
    bound.serve(Some(tls), handler, limits, drained).await;
    Ok(())
}
