//! Puts the kubelet together: the only place that knows all rooms. Below it, in `server/`, the
//! node's HTTP API.

mod answer;
mod api;
mod auth;
mod checkpoint;
mod client_ca;
mod commands;
mod debug;
mod files;
mod logs;
mod node_log_query;
mod node_logs;
mod resources;
mod routes;
mod stats;
mod streaming;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::events::{EventType, Recorder};
use client::informer::{Event as Change, Selection};
use client::{Api, Client, Informer};
use component::features::FeatureGates;
use component::flags::GoDuration;
use component::health::Checks;
use component::metrics::Slis;
use component::serving::{
    Bound, Identity, Limits, ServingCertificate, TlsFiles, TlsOptions, full, handler,
};
use component::zpages::ZPages;
use grpc::cri::CgroupDriver;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::api::NodeApi;
use self::auth::{Auth, AuthSettings};
use self::client_ca::ClientCa;
use self::routes::Served;
use self::stats::{Sources, Stats, SystemGroups};
use crate::allocation::{self, Allocations};
use crate::certificate::connect::connect;
use crate::certificate::serving;
use crate::cgroups::{self, CgroupName, Hierarchy, PodCgroups, Slices};
use crate::config::KubeletConfiguration;
use crate::cpus::CpuSet;
use crate::cri::backoff::Backoff;
use crate::cri::client::CriClient;
use crate::cri::dns::ClusterDns;
use crate::cri::gc::Collector;
use crate::cri::limits::{LimitDefaults, cpu_shares};
use crate::cri::runtime::{Runtime, Settings as RuntimeSettings};
use crate::cri::security::{SecurityDefaults, masked_paths};
use crate::cri::{gc, log_rotation};
use crate::devices::{self, Devices};
use crate::event::{Event, Source};
use crate::events::{Events, Kind};
use crate::eviction;
use crate::images::plugins::{Accounts, Plugins};
use crate::images::{
    CredentialSources, GcPolicy, ImageGc, Images, NodeFiles, PullLimits, Records as PullRecords,
    VerificationPolicy,
};
use crate::metrics::Metrics;
use crate::node_status::facts::{Facts, NodeFacts};
use crate::node_status::register::{Registration, register};
use crate::node_status::runtime_state::RuntimeState;
use crate::node_status::setters::{self, NodeSettings};
use crate::node_status::{declared, lease, updater::Updater};
use crate::options::Options;
use crate::pleg::Pleg;
use crate::plugins::{Handler, Handlers, Registry};
use crate::pod_resources::PodResources;
use crate::pods::active::ActivePods;
use crate::pods::dirs::Root;
use crate::pods::index::PodIndex;
use crate::pods::mirror::Mirrors;
use crate::pods::static_pod::Terms;
use crate::pods::sync::Syncer;
use crate::pods::worker::Times;
use crate::pods::{source_file, source_http};
use crate::prober::Prober;
use crate::resources::requests::{ResourceList, amounts, of, value};
use crate::shutdown;
use crate::status::StatusManager;
use crate::sync_loop::{self, SyncLoop};
use crate::sys;
use crate::sys::host::Host;
use crate::sys::lock::Lock;
use crate::sys::node::Machine;
use crate::systemd::Units;
use crate::volumes::csi::{self, Csi};
use crate::volumes::disks::Disks;
use crate::volumes::{Objects, Tokens, Volumes};

/// How long a container must run until its crashes are forgotten.
const FORGET_CRASHES: Duration = Duration::from_secs(600);

/// Runs the kubelet until `stop`.
///
/// # Errors
/// When it cannot start; once it runs, it goes on.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let config = &options.config;
    for warning in &options.warnings {
        warn!("{warning}");
    }
    debug!(
        configuration = config.loggable(),
        "the effective configuration"
    );
    let _lock = lock(&options, &stop).await?;
    let machine = Machine::read();
    tune_process(config);
    check_kernel(config)?;
    check_swap(config, &machine)?;
    let hierarchy = Hierarchy::detect()?;
    let root = Root::new(&options.root_dir);
    make_root(&root, config)?;

    let gates = FeatureGates::from_pairs(&config.feature_gates)?;
    gates.check()?;
    shutdown::validate(config, &gates).map_err(anyhow::Error::msg)?;
    let node = node_settings(&options, &machine, &gates);
    info!(node = node.name, addresses = ?setters::host_ips(&node), cgroup_v2 = hierarchy.is_v2(), "starting");
    let metrics = Arc::new(Metrics::new(&node.name, hierarchy.is_v2())?);
    let api = match &options.kubeconfig {
        Some(path) => Some(connect(path, &options, &node.name, &metrics, &stop).await?),
        None => None,
    };
    let recorder = api.as_ref().map(|client| {
        // Events have a rate of their own; zero is none.
        let burst = u32::try_from(config.event_burst).unwrap_or_default();
        let client = client.with_rate_limit(config.event_record_qps as f32, burst);
        Recorder::start(&client, "kubelet", &node.name, &stop)
    });
    let events = Arc::new(Events::new(recorder.map(sink), &node.name));

    let runtime = CriClient::new(
        &config.container_runtime_endpoint,
        config.image_endpoint(),
        config.runtime_request_timeout.get(),
        &metrics,
    )?;
    let (runtime_name, runtime_version) = wait_for_runtime(&runtime, &stop).await?;

    let root_fs = sys::fs::usage(root.path()).unwrap_or_default();
    let (capacity, allocatable) = setters::resources(&machine, root_fs.capacity, &node);
    for (name, has) in amounts(Some(&capacity)) {
        let of_list = |list| of(Some(list), &name);
        let reserved = of_list(&node.system_reserved) + of_list(&node.kube_reserved);
        anyhow::ensure!(
            reserved <= has,
            "invalid Node Allocatable configuration. Resource {name:?} has a reservation of \
             {reserved} but capacity of {has}. Expected capacity >= reservation."
        );
    }
    let facts = Arc::new(NodeFacts::new(Facts {
        host_ips: setters::host_ips(&node),
        capacity: capacity.clone(),
        allocatable: allocatable.clone(),
        runtime_name: runtime_name.clone(),
        runtime_version,
        network_error: Some("network state unknown".into()),
        ..Facts::default()
    }));
    let mut runtime_state = RuntimeState::default();
    runtime_state.look(&runtime, None, &facts).await;

    let cgroups = pod_cgroups(config, hierarchy.clone(), &runtime).await?;
    cgroups
        .start()
        .await
        .context("cannot make the pods' cgroups")?;
    let limited = cgroups.clone();

    enforce_reserved(config, &hierarchy, &node, &events)?;

    // The loop's events, and everyone who tells of something.
    let (told, heard) = mpsc::unbounded_channel();
    let index = Arc::new(PodIndex::default());
    let status = Arc::new(StatusManager::new(index.clone()));
    status.set_runtime_name(&runtime_name);
    let objects = {
        let told = told.clone();
        Arc::new(Objects::new(api.clone(), move |pods| {
            let _ = told.send(Event::Objects(pods));
        }))
    };
    let services = api.as_ref().map(|client| {
        let services = Informer::<Service>::new(
            Api::all(client),
            // A service without an address becomes no variable.
            &Selection::fields("spec.clusterIP!=None"),
        );
        services.set_transform(slim_service);
        services.start(&stop);
        services
    });
    let node_changed = Arc::new(Notify::new());
    let tokens = Arc::new(Tokens::new(api.clone()));
    let csi_node = csi::NodeInfo::new(api.clone(), &node.name);
    let csi_drivers = csi::Drivers::new(csi_node.clone(), metrics.clone());
    let csi = csi::Setup {
        drivers: csi_drivers.clone(),
        api: api.clone(),
        tokens: tokens.clone(),
        events: events.clone(),
        node: node.name.clone(),
        root: root.clone(),
        facts: facts.clone(),
        node_changed: node_changed.clone(),
    };
    let csi = Csi::new(csi, &stop);
    // Without a controller that attaches disks, they are there for whoever asks.
    let attached = config.enable_controller_attach_detach && api.is_some();
    let in_use = attached.then(|| csi.in_use());
    let disks = Disks::new(Host::default(), root.clone(), api.clone(), in_use);
    tokio::spawn(disks.clone().run(stop.clone()));
    let pulls = pull_records(config, &gates, &root, &runtime).await?;
    let sources = credential_sources(&options, &gates, &api, &tokens, &metrics)?;
    let volumes = Volumes::new(
        objects.clone(),
        tokens,
        root.clone(),
        api.clone(),
        csi,
        disks,
    );
    let volumes = Arc::new(volumes);
    let (dra, dra_drivers) =
        resources::dynamic(&root, &gates, &api, &node, &metrics, &told, &stop)?;
    let active = ActivePods {
        index: index.clone(),
        status: status.clone(),
    };
    let topology = resources::open(resources::Setup {
        config,
        gates: &gates,
        root: &root,
        machine: &machine,
        node: &node,
        runtime: &runtime,
        active: active.clone(),
        metrics: &metrics,
        told: &told,
        node_changed: &node_changed,
    })
    .await?;
    let pods = active.clone();
    let (device_plugins, cpus) = (topology.devices.clone(), topology.cpus.clone());
    let syncer = Arc::new(Syncer {
        runtime: Runtime {
            client: runtime.clone(),
            events: events.clone(),
            images: Images::new(
                runtime.clone(),
                events.clone(),
                sources,
                pulls.clone(),
                pull_limits(config),
            ),
            cgroups,
            settings: runtime_settings(config, &root, &machine, &node, &hierarchy),
            objects: objects.clone(),
            api: api.clone(),
            backoff: Backoff::forgetting(
                Duration::from_secs(10),
                longest_backoff(config),
                FORGET_CRASHES,
            )
            .into(),
            metrics: metrics.clone(),
            given: allocation::given(root.path())?,
            collector: Collector::default(),
            dra: dra.clone(),
            topology: topology.clone(),
        },
        allocations: Arc::new(Allocations::open(root.path(), &metrics)?),
        volumes: volumes.clone(),
        prober: Prober::new(
            runtime.clone(),
            events.clone(),
            status.clone(),
            told.clone(),
            metrics.clone(),
        ),
        status: status.clone(),
        index: index.clone(),
        facts: facts.clone(),
        services,
        mirrors: api
            .clone()
            .map(|client| Mirrors::new(client, node.name.clone())),
        show_device_health: gates.enabled("ResourceHealthStatus"),
        failures: Default::default(),
        evictions: Default::default(),
    });
    let plugins = Registry::new(
        root.plugins_registry(),
        Handlers::from([
            ("DRAPlugin", Arc::new(dra_drivers) as Arc<dyn Handler>),
            ("CSIPlugin", Arc::new(csi_drivers)),
            ("DevicePlugin", Arc::new(device_plugins.clone())),
        ]),
        metrics.clone(),
    );
    tokio::spawn(plugins.run(stop.clone()));
    devices::serve(&device_plugins, stop.clone())
        .context("cannot serve the registration of device plugins")?;
    PodResources::new(active, topology, dra)
        .serve(&root.path().join("pod-resources"), stop.clone())
        .context("cannot serve the pod resources API")?;
    if cpus.is_static() {
        let every = config.cpu_manager_reconcile_period.get();
        tokio::spawn(cpus.run(runtime.clone(), every, stop.clone()));
    }
    let pleg = Pleg::new(runtime.clone(), told.clone(), metrics.clone());
    let checks = health_checks(&pleg, &device_plugins);
    let identity = if config.server_tls_bootstrap && gates.enabled("RotateKubeletServerCertificate")
    {
        let about = serving::Node {
            name: node.name.clone(),
            facts: facts.clone(),
            dns_only: gates.enabled("AllowDNSOnlyNodeCSR"),
        };
        Identity::Resolved(serving::start(
            &options,
            about,
            api.as_ref(),
            &metrics,
            &stop,
        )?)
    } else {
        files(&options, &node)?.into()
    };
    let servers = serve(
        &options,
        identity,
        &node,
        &api,
        &runtime,
        &pleg,
        &index,
        &status,
        &volumes,
        &checks,
        &syncer.runtime.cgroups,
        &machine,
        metrics.clone(),
        &stop,
    )
    .await?;

    let mut sources = HashSet::new();
    if let Some(client) = &api {
        tokio::spawn(csi_node.run(stop.clone()));
        sources.insert(Source::Api);
        tokio::spawn(status.clone().run(client.clone(), stop.clone()));
        let node_task = NodeTask {
            client: client.clone(),
            runtime: runtime.clone(),
            machine,
            settings: node.clone(),
            registration: Registration {
                taints: config.register_with_taints.clone(),
                labels: options.node_labels.clone(),
                provider_id: config.provider_id.clone(),
                attach_detach: config.enable_controller_attach_detach,
                reset_devices: device_plugins.is_fresh(),
            },
            register: config.register_node,
            facts: facts.clone(),
            devices: device_plugins,
            events: events.clone(),
            wake: node_changed.clone(),
            update_every: config.node_status_update_frequency.get(),
            report_every: config.node_status_report_frequency.get(),
            lease_seconds: config.node_lease_duration_seconds,
        };
        tokio::spawn(node_task.run(told.clone(), stop.clone()));
    }
    let terms = Terms {
        node_name: node.name.clone(),
        may_refer: !gates.enabled("PreventStaticPodAPIReferences"),
    };
    if !config.static_pod_url.is_empty() {
        sources.insert(Source::Http);
        let headers = config.static_pod_url_header.iter();
        tokio::spawn(source_http::run(
            source_http::Server::new(&config.static_pod_url, headers)?,
            terms.clone(),
            config.http_check_frequency.get(),
            told.clone(),
            stop.clone(),
        ));
    }
    if !config.static_pod_path.is_empty() {
        sources.insert(Source::File);
        let path = PathBuf::from(&config.static_pod_path);
        let every = config.file_check_frequency.get();
        tokio::spawn(source_file::run(
            path,
            terms,
            every,
            told.clone(),
            stop.clone(),
        ));
    }
    tokio::spawn(runtime_state.run(
        runtime.clone(),
        pleg.clone(),
        facts,
        told.clone(),
        stop.clone(),
    ));
    tokio::spawn(pleg.run(stop.clone()));
    let logs = log_rotation::Policy {
        max_size: u64::try_from(value(&Quantity(config.container_log_max_size.clone())))
            .unwrap_or(u64::MAX),
        max_files: usize::try_from(config.container_log_max_files).unwrap_or(usize::MAX),
    };
    let logs_root = PathBuf::from(&config.pod_logs_dir);
    let every = config.container_log_monitor_interval.get();
    let images = Arc::new(image_gc(config, &runtime, &events, &metrics, pulls));
    tokio::spawn(images.clone().run(stop.clone()));
    if let Some(periods) = shutdown::Periods::new(config, &gates) {
        let shutdown = shutdown::Manager {
            periods,
            active: pods,
            facts: syncer.facts.clone(),
            events: events.clone(),
            metrics: metrics.clone(),
            root: root.clone(),
            told: told.clone(),
            node_changed: node_changed.clone(),
        };
        tokio::spawn(shutdown.run(stop.clone()));
    }
    let evictions = eviction::Manager {
        syncer: syncer.clone(),
        policy: options.eviction.clone(),
        images,
        root,
        told: told.clone(),
        node_changed: node_changed.clone(),
    };
    tokio::spawn(evictions.run(stop.clone()));
    tokio::spawn(log_rotation::run(
        runtime,
        logs_root.clone(),
        logs,
        every,
        stop.clone(),
    ));
    events.node(Kind::Normal, "Starting", "Starting kubelet.");
    tokio::spawn({
        let limits = all_pods_limits(config, &capacity, &node);
        let limiting = limit_all_pods(limited, limits, events.clone());
        stop.clone().run_until_cancelled_owned(limiting)
    });

    let settings = sync_loop::Settings {
        node_name: node.name.clone(),
        times: Times {
            resync: config.sync_frequency.get(),
            retry: Duration::from_secs(1),
            max_retry: Duration::from_secs(10),
        },
        unsafe_sysctls: config.allowed_unsafe_sysctls.clone(),
        static_cpus: config.cpu_manager_policy == "static",
        static_memory: config.memory_manager_policy == "Static",
        sources,
        nodes: api.as_ref().map(Api::all),
        gc: gc::Policy {
            per_container: options.max_dead_containers_per_container,
            total: options.max_dead_containers,
        },
        logs_root,
    };
    SyncLoop::new(syncer, settings, heard, told, node_changed)
        .run(stop)
        .await;
    for server in servers {
        let _ = server.await;
    }
    Ok(())
}

fn pull_limits(config: &KubeletConfiguration) -> PullLimits {
    let parallel = match config.serialize_image_pulls {
        Some(false) => config.max_parallel_image_pulls,
        _ => Some(1),
    };
    PullLimits {
        parallel: parallel.map_or(usize::MAX, |pulls| usize::try_from(pulls).unwrap_or(1)),
        per_second: config.registry_pull_qps,
        burst: u32::try_from(config.registry_burst).unwrap_or_default(),
    }
}

/// Who may use the images that are there; `None`: everybody may.
async fn pull_records(
    config: &KubeletConfiguration,
    gates: &FeatureGates,
    root: &Root,
    runtime: &CriClient,
) -> anyhow::Result<Option<Arc<PullRecords>>> {
    if !gates.enabled("KubeletEnsureSecretPulledImages") {
        return Ok(None);
    }
    let policy = VerificationPolicy::parse(
        &config.image_pull_credentials_verification_policy,
        &config.preloaded_images_verification_allowlist,
    );
    let policy = policy.map_err(|why| anyhow::anyhow!("invalid configuration: {why}"))?;
    let records = PullRecords::open(root.path(), policy).context("cannot keep records of pulls")?;
    match runtime.list_images().await {
        Ok(images) => records.recover(&images, Timestamp::now()),
        Err(error) => warn!(%error, "failed to list images"),
    }
    Ok(Some(Arc::new(records)))
}

/// Where images' credentials come from.
fn credential_sources(
    options: &Options,
    gates: &FeatureGates,
    api: &Option<Client>,
    tokens: &Arc<Tokens>,
    metrics: &Metrics,
) -> anyhow::Result<CredentialSources> {
    let path = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
    let (config, directory) = (
        path(&options.image_credential_provider_config),
        path(&options.image_credential_provider_bin_dir),
    );
    let any = !config.as_os_str().is_empty() || !directory.as_os_str().is_empty();
    let open = || {
        let accounts = Accounts {
            api: api.clone(),
            tokens: tokens.clone(),
        };
        let may = gates.enabled("KubeletServiceAccountTokenForCredentialProviders");
        Plugins::open(&config, &directory, may, accounts, metrics.registry.inner())
            .context("Failed to register CRI auth plugins")
    };
    Ok(CredentialSources {
        files: NodeFiles::usual(&options.root_dir),
        plugins: any.then(open).transpose()?,
    })
}

fn image_gc(
    config: &KubeletConfiguration,
    runtime: &CriClient,
    events: &Arc<Events>,
    metrics: &Arc<Metrics>,
    pulls: Option<Arc<PullRecords>>,
) -> ImageGc {
    let percent = |percent: i32| u64::try_from(percent).unwrap_or_default();
    let policy = GcPolicy {
        high: percent(config.image_gc_high_threshold_percent),
        low: percent(config.image_gc_low_threshold_percent),
        min_age: config.image_minimum_gc_age.get(),
        max_age: config.image_maximum_gc_age.get(),
    };
    let (runtime, events) = (runtime.clone(), events.clone());
    ImageGc::new(runtime, events, metrics.clone(), policy, pulls)
}

fn tune_process(config: &KubeletConfiguration) {
    if let Err(error) = sys::process::set_oom_score_adj(config.oom_score_adj) {
        warn!(%error, score = config.oom_score_adj, "cannot set the kubelet's oom_score_adj");
    }
    let files = u64::try_from(config.max_open_files).unwrap_or_default();
    if let Err(error) = sys::process::set_max_open_files(files) {
        warn!(%error, files, "cannot raise the number of files the kubelet may open");
    }
}

/// A number that the configuration's validation has found to be a port's.
fn port(number: i32) -> u16 {
    u16::try_from(number).unwrap_or_default()
}

/// The longest that a container which crashes waits for its next start.
fn longest_backoff(config: &KubeletConfiguration) -> Duration {
    let period = config.crash_loop_back_off.max_container_restart_period;
    period.map_or(Duration::from_secs(300), GoDuration::get)
}

/// The lock of `--lock-file`, once it is free. Another that wants it then may stop the kubelet.
async fn lock(options: &Options, stop: &CancellationToken) -> anyhow::Result<Option<Lock>> {
    let Some(path) = options.lock_file.clone() else {
        return Ok(None);
    };
    info!(path = %path.display(), "acquiring the file's lock");
    let file = path.clone();
    let acquired = tokio::task::spawn_blocking(move || sys::lock::acquire(&file));
    let acquired = tokio::select! {
        acquired = acquired => acquired?,
        () = stop.cancelled() => anyhow::bail!("stopped while waiting for the lock file"),
    };
    let shown = path.display();
    let lock = acquired.with_context(|| format!("unable to acquire file lock on {shown}"))?;
    if options.exit_on_lock_contention {
        let (watcher, wanted) = sys::lock::watch(&path)
            .with_context(|| format!("unable to watch the lock file {shown}"))?;
        let stop = stop.clone();
        tokio::spawn(async move {
            let _watcher = watcher;
            wanted.notified().await;
            info!("another wants the lock file: stopping");
            stop.cancel();
        });
    }
    Ok(Some(lock))
}

/// The kernel's settings are the administrator's; `protectKernelDefaults` insists on upstream's.
fn check_kernel(config: &KubeletConfiguration) -> anyhow::Result<()> {
    let differing = sys::tunables::differing(Path::new("/proc/sys"));
    if config.protect_kernel_defaults && !differing.is_empty() {
        anyhow::bail!(
            "Failed to start ContainerManager: [{}]",
            differing.join(", ")
        );
    }
    for flag in differing {
        info!("{flag}");
    }
    Ok(())
}

/// Has the system's and Kubernetes' own groups keep to what is reserved for them.
fn enforce_reserved(
    config: &KubeletConfiguration,
    hierarchy: &Hierarchy,
    node: &NodeSettings,
    events: &Events,
) -> anyhow::Result<()> {
    for (level, shown, kind, group, amounts) in [
        (
            "system-reserved",
            "System Reserved",
            "system reserved",
            &config.system_reserved_cgroup,
            &node.system_reserved,
        ),
        (
            "kube-reserved",
            "Kube Reserved",
            "kube reserved",
            &config.kube_reserved_cgroup,
            &node.kube_reserved,
        ),
    ] {
        let levels = &config.enforce_node_allocatable;
        let has = |level: &str| levels.iter().any(|l| l == level);
        let compressible = has(&format!("{level}-compressible"));
        if !compressible && !has(level) {
            continue;
        }
        let reserved = cgroups::Reserved {
            group,
            amounts,
            compressible,
        };
        if let Err(error) = reserved.enforce(hierarchy) {
            let part = if compressible { " Compressible" } else { "" };
            let message =
                format!("Failed to enforce {shown}{part} Cgroup Limits on {group:?}: {error}");
            events.node(Kind::Warning, "FailedNodeAllocatableEnforcement", &message);
            anyhow::bail!("Failed to start ContainerManager: {message}");
        }
        let message = format!("Updated limits on {kind} cgroup {group}");
        events.node(Kind::Normal, "NodeAllocatableEnforced", &message);
    }
    Ok(())
}

fn check_swap(config: &KubeletConfiguration, machine: &Machine) -> anyhow::Result<()> {
    if config.fail_swap_on && machine.swap > 0 {
        anyhow::bail!(
            "running with swap on is not supported, please disable swap or set failSwapOn to false"
        );
    }
    Ok(())
}

fn make_root(root: &Root, config: &KubeletConfiguration) -> anyhow::Result<()> {
    for path in [
        root.pods(),
        root.path().join("plugins"),
        root.plugins_registry(),
        PathBuf::from(&config.pod_logs_dir),
        PathBuf::from(crate::cri::logs::CONTAINERS_DIR),
    ] {
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
    }
    // What is mounted into a pod later must reach its containers.
    if let Err(error) = sys::mount::make_shared(root.path()) {
        debug!(%error, "the root directory is no mount point of its own");
    }
    Ok(())
}

fn node_settings(options: &Options, machine: &Machine, gates: &FeatureGates) -> NodeSettings {
    let config = &options.config;
    let hostname = match options.hostname_override.trim() {
        "" => machine.hostname.clone(),
        name => name.to_owned(),
    }
    .to_lowercase();
    let v6 = options.node_ips.first().is_some_and(IpAddr::is_ipv6);
    let own = hostname.parse::<IpAddr>().ok();
    let default_ips = own
        .or_else(|| sys::node::default_address(v6))
        .into_iter()
        .collect();
    let list = |map: &std::collections::BTreeMap<String, String>| -> ResourceList {
        map.iter()
            .map(|(name, amount)| (name.clone(), Quantity(amount.clone())))
            .collect()
    };
    let mut system_reserved = list(&config.system_reserved);
    let mut kube_reserved = list(&config.kube_reserved);
    // Certain CPUs instead of so many of any.
    let named: CpuSet = config.reserved_system_cpus.parse().unwrap_or_default();
    if !named.is_empty() {
        kube_reserved.remove("cpu");
        system_reserved.insert("cpu".into(), Quantity(named.len().to_string()));
    }
    NodeSettings {
        name: hostname.clone(),
        hostname,
        node_ips: options.node_ips.clone(),
        default_ips,
        external_cloud_provider: options.external_cloud_provider,
        port: port(config.port),
        max_pods: config.max_pods.into(),
        pods_per_core: config.pods_per_core.into(),
        max_images: config.node_status_max_images,
        system_reserved,
        kube_reserved,
        kept: options.eviction.kept.clone(),
        declared_features: declared::features(gates),
    }
}

fn sink(recorder: Recorder) -> crate::events::Sink {
    Box::new(move |about, kind, reason, message, annotations| {
        let kind = match kind {
            Kind::Normal => EventType::Normal,
            Kind::Warning => EventType::Warning,
        };
        recorder.annotated(about, kind, reason, message, annotations);
    })
}

/// Name and version, once the runtime answers.
async fn wait_for_runtime(
    runtime: &CriClient,
    stop: &CancellationToken,
) -> anyhow::Result<(String, String)> {
    let mut told = false;
    loop {
        match runtime.version().await {
            Ok(version) => return Ok((version.runtime_name, version.runtime_version)),
            Err(error) if !told => {
                warn!(%error, "waiting for the container runtime");
                told = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => anyhow::bail!("stopped while waiting for the container runtime"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

async fn pod_cgroups(
    config: &KubeletConfiguration,
    hierarchy: Hierarchy,
    runtime: &CriClient,
) -> anyhow::Result<PodCgroups> {
    let period = i64::try_from(config.cpu_cfs_quota_period.get().as_micros()).unwrap_or(100_000);
    let driver = cgroup_driver(config, runtime).await?;
    Ok(PodCgroups {
        hierarchy,
        names: CgroupName::new(&config.cgroup_root, config.cgroups_per_qos, driver.style()),
        driver,
        settings: cgroups::PodLimits {
            cfs_quota: config.cpu_cfs_quota,
            cfs_period: period,
            pids: config.pod_pids_limit,
        },
        per_qos: config.cgroups_per_qos,
        weighing: Arc::default(),
    })
}

/// Who makes groups: the same as for the runtime, if it says (KEP-4033).
async fn cgroup_driver(
    config: &KubeletConfiguration,
    runtime: &CriClient,
) -> anyhow::Result<cgroups::Driver> {
    let told = runtime
        .cgroup_driver()
        .await
        .context("the container runtime does not tell its cgroup driver")?;
    let systemd = told.map_or(config.cgroup_driver == "systemd", |told| {
        told == CgroupDriver::Systemd
    });
    info!(systemd, told = told.is_some(), "the cgroup driver");
    if !systemd {
        return Ok(cgroups::Driver::Cgroupfs);
    }
    let slices = Slices::new(Units::of_machine()).await.context(
        "cannot reach systemd, which is to make the pods' cgroups: where it does not run this machine, set \
         cgroupDriver to cgroupfs, and SystemdCgroup to false in the runtime's configuration",
    )?;
    Ok(cgroups::Driver::Systemd(slices))
}

/// Whether what is reserved is kept from the pods.
fn limits_all_pods(config: &KubeletConfiguration) -> bool {
    let levels = &config.enforce_node_allocatable;
    levels.iter().any(|level| level == "pods")
}

/// Limits all pods together; again and again where they have more than that when the kubelet starts,
/// until enough of them are evicted.
async fn limit_all_pods(cgroups: PodCgroups, limits: cgroups::Limits, events: Arc<Events>) {
    const RETRY: Duration = Duration::from_secs(60);
    while let Err(error) = cgroups.limit_all(&limits).await {
        let group = cgroups.names.all();
        let message = format!("Failed to update Node Allocatable Limits {group:?}: {error}");
        events.node(Kind::Warning, "FailedNodeAllocatableEnforcement", &message);
        tokio::time::sleep(RETRY).await;
    }
    let message = "Updated Node Allocatable limit across pods";
    events.node(Kind::Normal, "NodeAllocatableEnforced", message);
}

/// All pods together may use what is not reserved, if that is to be enforced.
fn all_pods_limits(
    config: &KubeletConfiguration,
    capacity: &ResourceList,
    node: &NodeSettings,
) -> cgroups::Limits {
    let enforced = limits_all_pods(config);
    let left = |name: &str| {
        let reserved = of(Some(&node.system_reserved), name) + of(Some(&node.kube_reserved), name);
        of(Some(capacity), name) - if enforced { reserved } else { 0 }
    };
    let pids = [&node.system_reserved, &node.kube_reserved]
        .iter()
        .filter_map(|list| list.get("pid"))
        .map(value)
        .sum::<i64>();
    let (max, _) = sys::node::processes();
    cgroups::Limits {
        cpu_shares: Some(cpu_shares(left("cpu"))),
        memory: Some(left("memory")),
        pids: i64::try_from(max)
            .ok()
            .map(|max| max - pids)
            .filter(|_| enforced && pids > 0),
        ..cgroups::Limits::default()
    }
}

fn runtime_settings(
    config: &KubeletConfiguration,
    root: &Root,
    machine: &Machine,
    node: &NodeSettings,
    hierarchy: &Hierarchy,
) -> RuntimeSettings {
    RuntimeSettings {
        root: root.clone(),
        logs_root: config.pod_logs_dir.clone(),
        resolv_conf: config.resolv_conf.clone(),
        dns: ClusterDns {
            servers: config.cluster_dns.clone(),
            domain: config.cluster_domain.clone(),
            has_resolv_conf: !config.resolv_conf.is_empty(),
            ipv6: setters::host_ips(node)
                .first()
                .is_some_and(|ip| ip.contains(':')),
        },
        limits: LimitDefaults {
            cfs_quota: config.cpu_cfs_quota,
            cfs_period: i64::try_from(config.cpu_cfs_quota_period.get().as_micros())
                .unwrap_or(100_000),
            node_memory: i64::try_from(machine.memory).unwrap_or(i64::MAX),
            oom_kills_group: hierarchy.is_v2() && config.single_process_oom_kill != Some(true),
            hugepage_sizes: machine
                .hugepage_sizes
                .iter()
                .map(sys::node::HugePages::cgroup_name)
                .collect(),
            swap: machine.swap > 0 && hierarchy.is_v2(),
        },
        security: SecurityDefaults {
            seccomp_root: root.seccomp().to_string_lossy().into_owned(),
            seccomp_default: config.seccomp_default,
            masked_paths: masked_paths(sys::node::thermal_throttle_paths()),
        },
    }
}

/// Of a service, only what becomes environment variables is kept.
fn slim_service(service: &mut Service) {
    service.metadata.managed_fields = None;
    service.metadata.annotations = None;
    service.metadata.labels = None;
    service.status = None;
    if let Some(spec) = &mut service.spec {
        spec.selector = None;
    }
}

fn health_checks(pleg: &Arc<Pleg>, devices: &Arc<Devices>) -> Checks {
    let checks = Checks::new();
    // Upstream's checks that its log is still written; ours has nobody who could stop doing so.
    checks.add("log", || Ok(()));
    let pleg = pleg.clone();
    checks.add("syncloop", move || pleg.unhealthy().map_or(Ok(()), Err));
    let devices = devices.clone();
    checks.add("device-plugin", move || {
        devices.failure().map_or(Ok(()), Err)
    });
    checks
}

/// The certificate that is given, or one that nobody has signed.
fn files(options: &Options, node: &NodeSettings) -> anyhow::Result<TlsFiles> {
    let config = &options.config;
    if config.tls_cert_file.is_empty() {
        let names: Vec<String> = std::iter::once(node.hostname.clone())
            .chain(setters::host_ips(node))
            .collect();
        return Ok(TlsFiles::self_signed(&options.cert_dir, "kubelet", &names)?);
    }
    Ok(TlsFiles {
        certificate: config.tls_cert_file.clone().into(),
        key: config.tls_private_key_file.clone().into(),
    })
}

fn served(config: &KubeletConfiguration, gates: &FeatureGates, checks: &Checks) -> Served {
    Served {
        debugging: config.enable_debugging_handlers,
        system_logs: config.enable_system_log_handler,
        profiling: config.enable_profiling_handler,
        debug_flags: config.enable_debug_flags_handler,
        checkpoint: gates.enabled("ContainerCheckpoint"),
        flagz: gates.enabled("ComponentFlagz"),
        statusz: gates.enabled("ComponentStatusz"),
        checks: checks.names(),
    }
}

#[allow(clippy::too_many_arguments)]
async fn serve(
    options: &Options,
    identity: Identity,
    node: &NodeSettings,
    api: &Option<Client>,
    runtime: &CriClient,
    pleg: &Arc<Pleg>,
    index: &Arc<PodIndex>,
    status: &Arc<StatusManager>,
    volumes: &Arc<Volumes>,
    checks: &Checks,
    cgroups: &PodCgroups,
    machine: &Machine,
    metrics: Arc<Metrics>,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<tokio::task::JoinHandle<()>>> {
    let config = &options.config;
    let mut tasks = Vec::new();
    let address = |ip: &str, port: i32| -> anyhow::Result<SocketAddr> {
        let parsed = ip.parse();
        let parsed = parsed.with_context(|| format!("{ip:?} is no address to serve on"))?;
        Ok(SocketAddr::new(parsed, self::port(port)))
    };
    let limits = Limits {
        drain_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    if config.healthz_port > 0 {
        let bound = Bound::new(address(&config.healthz_bind_address, config.healthz_port)?)
            .await
            .with_context(|| format!("cannot serve health on port {}", config.healthz_port))?;
        let checks = checks.clone();
        let health = handler(move |request: http::Request<hyper::body::Incoming>, _| {
            let (path, query) = (
                request.uri().path().to_owned(),
                request.uri().query().unwrap_or_default().to_owned(),
            );
            let answer = checks.respond("healthz", &path, &query).map(full);
            async move { answer }
        });
        tasks.push(tokio::spawn(bound.serve(
            None,
            health,
            limits.clone(),
            stop.clone(),
        )));
    }
    if !config.enable_server {
        return Ok(tasks);
    }
    let settings = AuthSettings {
        node_name: node.name.clone(),
        anonymous: config.authentication.anonymous.enabled,
        token_webhook: config.authentication.webhook.enabled,
        token_ttl: config.authentication.webhook.cache_ttl.get(),
        authorize: config.authorization.mode == "Webhook",
        allowed_ttl: config.authorization.webhook.cache_authorized_ttl.get(),
        denied_ttl: config.authorization.webhook.cache_unauthorized_ttl.get(),
    };
    let gates = FeatureGates::from_pairs(&config.feature_gates)?;
    let client_ca =
        Some(&config.authentication.x509.client_ca_file).filter(|path| !path.is_empty());
    let authority = client_ca
        .map(|path| ClientCa::load(Path::new(path)))
        .transpose()?;
    let slis = Slis::new().context("metrics of health checks")?;
    checks.report(&slis);
    let served = served(config, &gates, checks);
    let paths = served.listed();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let node_api = Arc::new(NodeApi {
        auth: Auth::new(settings, api.clone(), authority),
        served_to_anyone: served.read_only(),
        served,
        runtime: runtime.clone(),
        pleg: pleg.clone(),
        index: index.clone(),
        status: status.clone(),
        stats: Stats::new(Sources {
            runtime: runtime.clone(),
            cgroups: cgroups.clone(),
            system: SystemGroups::default(),
            index: index.clone(),
            volumes: volumes.clone(),
            node_name: node.name.clone(),
            machine: machine.clone(),
            root: Root::new(&options.root_dir),
            logs_root: config.pod_logs_dir.clone(),
        }),
        checks: checks.clone(),
        slis,
        metrics,
        zpages: ZPages::new("kubelet", &gates, &options.flags, &paths),
        root: Root::new(&options.root_dir),
        translates: gates.enabled(declared::WEBSOCKETS),
        splits_logs: gates.enabled("PodLogsQuerySplitStreams"),
        queries_node_logs: config.enable_system_log_query && gates.enabled("NodeLogQuery"),
        config: config.clone(),
    });
    let certificate = ServingCertificate::load(TlsOptions {
        default: Some(identity),
        client_ca: client_ca.map(PathBuf::from).into_iter().collect(),
        verifies_later: true,
        policy: options.tls.clone(),
        ..TlsOptions::default()
    })?;
    let bound = Bound::new(address(&config.address, config.port)?)
        .await
        .with_context(|| format!("cannot serve the node's API on port {}", config.port))?;
    let full_api = node_api.clone();
    let all = handler(move |request, peer| full_api.clone().handle(request, peer));
    tasks.push(tokio::spawn(bound.serve(
        Some(certificate),
        all,
        limits.clone(),
        stop.clone(),
    )));
    if config.read_only_port > 0 {
        let bound = Bound::new(address(&config.address, config.read_only_port)?)
            .await
            .with_context(|| format!("cannot serve on port {}", config.read_only_port))?;
        let some = handler(move |request, _| node_api.clone().handle_read_only(request));
        tasks.push(tokio::spawn(bound.serve(None, some, limits, stop.clone())));
    }
    Ok(tasks)
}

/// The node in the API server: registered first, then shown, kept alive, and its pods followed.
struct NodeTask {
    client: Client,
    runtime: CriClient,
    machine: Machine,
    settings: NodeSettings,
    registration: Registration,
    register: bool,
    facts: Arc<NodeFacts>,
    devices: Arc<Devices>,
    events: Arc<Events>,
    wake: Arc<Notify>,
    update_every: Duration,
    report_every: Duration,
    lease_seconds: i32,
}

impl NodeTask {
    async fn run(self, told: mpsc::UnboundedSender<Event>, stop: CancellationToken) {
        if self.register {
            register(
                &self.client,
                &self.machine,
                &self.settings,
                &self.registration,
                &stop,
            )
            .await;
        }
        let name = self.settings.name.clone();
        let node = Informer::<Node>::new(
            Api::all(&self.client),
            &Selection::fields(format!("metadata.name={name}")),
        );
        let (wake, facts) = (self.wake.clone(), self.facts.clone());
        node.add_handler(move |change| {
            let current = change.current().cloned();
            facts.update(|facts| facts.node.clone_from(&current));
            // The node's own heartbeats are no reason to look.
            let spec = |node: Option<&Arc<Node>>| node.and_then(|node| node.spec.clone());
            if spec(change.previous()) != spec(change.current()) {
                wake.notify_one();
            }
        });
        node.start(&stop);
        node.wait_synced().await;
        let known = node.store().get("", &name);
        self.facts.update(|facts| facts.node.clone_from(&known));

        let pods = Informer::<Pod>::new(
            Api::all(&self.client),
            &Selection::fields(format!("spec.nodeName={name}")),
        );
        let pod_events = told.clone();
        pods.set_transform(|pod| pod.metadata.managed_fields = None);
        pods.add_handler(move |change| {
            let event = match change {
                Change::Deleted { .. } => Event::PodGone(Source::Api, change.object().clone()),
                _ => Event::PodSet(Source::Api, change.object().clone()),
            };
            let _ = pod_events.send(event);
        });
        pods.start(&stop);
        tokio::spawn(async move {
            pods.wait_synced().await;
            let _ = told.send(Event::SourceReady(Source::Api));
        });

        tokio::spawn(lease::run(
            self.client.clone(),
            name,
            self.lease_seconds,
            stop.clone(),
        ));
        let updater = Updater {
            client: self.client,
            runtime: self.runtime,
            machine: self.machine,
            settings: self.settings,
            facts: self.facts,
            devices: self.devices,
            events: self.events,
            node,
            wake: self.wake,
            update_every: self.update_every,
            report_every: self.report_every,
        };
        updater.run(stop).await;
    }
}
