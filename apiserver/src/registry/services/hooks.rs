//! What writing a Service allocates and releases.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use meta::field::BadValue;
use meta::{ErrorList, FieldError, GroupKind, Path, Status};
use serde_json::{Value, json};

use super::super::object_meta::meta;
use super::super::strategy::{Context, Hooks, Undo};
use super::addresses::{Addresses, AllocationError, family};
use super::fields;
use super::node_ports::{Ports, Wanted};
use super::ports::{NodePorts, PortError};

pub struct ServiceHooks {
    pub addresses: Arc<Addresses>,
    pub ports: Arc<NodePorts>,
}

/// What has been taken for a write that may yet fail.
#[derive(Debug, Default)]
struct Taken {
    addresses: Vec<IpAddr>,
    ports: BTreeSet<i64>,
}

fn invalid(service: &Value, error: FieldError) -> Status {
    all_invalid(service, ErrorList::from(vec![error]))
}

fn all_invalid(service: &Value, errors: ErrorList) -> Status {
    let kind = GroupKind::new("", "Service");
    Status::invalid(&kind, meta(service).name(), &errors)
}

fn spec() -> Path {
    Path::new("spec")
}

/// Go prints the list of addresses as it prints a `[]string`.
fn go_strings(items: &[String]) -> BadValue {
    let quoted: Vec<String> = items.iter().map(|i| format!("{i:?}")).collect();
    BadValue::Raw(format!("[{}]", quoted.join(",")))
}

impl ServiceHooks {
    /// `ipFamilyPolicy` and `ipFamilies`, as far as the client left them open.
    fn families(&self, service: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        if !fields::needs_cluster_ip(service) {
            return Ok(());
        }
        let headless_selectorless = fields::is_headless(service) && !fields::has_selector(service);
        if service["spec"]["ipFamilyPolicy"].as_str().is_none() {
            let inherited = old.and_then(|o| o["spec"]["ipFamilyPolicy"].as_str());
            let policy = match inherited {
                Some(policy) => policy,
                None if headless_selectorless => "RequireDualStack",
                None => "SingleStack",
            };
            let policy = json!(policy);
            fields::spec_mut(service).insert("ipFamilyPolicy".into(), policy);
        }
        let errors = api::validation::service_addresses(service);
        if !errors.is_empty() {
            return Err(all_invalid(service, errors));
        }
        let policy = service["spec"]["ipFamilyPolicy"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let single = policy == "SingleStack";
        if let Some(old) = old.filter(|_| single) {
            // Going to a single family gives up the second of each.
            for (key, now, before) in [
                (
                    "clusterIPs",
                    fields::cluster_ips(service),
                    fields::cluster_ips(old),
                ),
                (
                    "ipFamilies",
                    fields::families(service),
                    fields::families(old),
                ),
            ] {
                if now == before && now.len() > 1 {
                    fields::spec_mut(service).insert(key.into(), json!(now[..1]));
                }
            }
        }
        let mut families = fields::families(service);
        let mut errors = ErrorList::default();
        if single {
            for (count, what) in [
                (fields::cluster_ips(service).len(), "cluster IPs"),
                (families.len(), "IP families"),
            ] {
                if count == 2 {
                    let detail = format!(
                        "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                    );
                    let path = spec().child("ipFamilyPolicy");
                    errors.push(FieldError::invalid(&path, policy.as_str(), detail));
                }
            }
        }
        for (i, ip) in fields::cluster_ips(service).iter().enumerate() {
            let Ok(ip) = ip.parse::<IpAddr>() else {
                break; // `None`
            };
            if i < families.len() {
                continue;
            }
            if self.addresses.has_family(family(ip)) {
                families.push(family(ip).to_owned());
                continue;
            }
            let path = spec().child("clusterIPs").index(i);
            let value = go_strings(&fields::cluster_ips(service));
            let detail = format!("{} is not configured on this cluster", family(ip));
            errors.push(FieldError::invalid(&path, value, detail));
        }
        if !errors.is_empty() {
            return Err(all_invalid(service, errors));
        }
        if families.is_empty() {
            families.push(self.addresses.default_family().to_owned());
        }
        let other = match families[0].as_str() {
            "IPv4" => "IPv6",
            _ => "IPv4",
        };
        if headless_selectorless {
            if !single && families.len() < 2 {
                families.push(other.to_owned());
            }
        } else {
            let dual = ["IPv4", "IPv6"];
            if policy == "RequireDualStack" && !dual.iter().all(|f| self.addresses.has_family(f)) {
                let path = spec().child("ipFamilyPolicy");
                let detail = "this cluster is not configured for dual-stack services";
                errors.push(FieldError::invalid(&path, policy.as_str(), detail));
            }
            for (i, wanted) in families.iter().enumerate() {
                if !self.addresses.has_family(wanted) {
                    let path = spec().child("ipFamilies").index(i);
                    let detail = "not configured on this cluster";
                    errors.push(FieldError::invalid(&path, wanted.as_str(), detail));
                }
            }
            if !errors.is_empty() {
                return Err(all_invalid(service, errors));
            }
            if !single && families.len() < 2 && self.addresses.has_family(other) {
                families.push(other.to_owned());
            }
        }
        fields::spec_mut(service).insert("ipFamilies".into(), json!(families));
        Ok(())
    }

    /// Addresses for every family, beyond those that the Service has had.
    async fn cluster_ips(
        &self,
        service: &mut Value,
        held: &BTreeSet<IpAddr>,
        dry_run: bool,
        taken: &mut Taken,
    ) -> Result<(), Status> {
        if !fields::needs_cluster_ip(service) || fields::is_headless(service) {
            return Ok(());
        }
        let mut ips = fields::cluster_ips(service);
        for (i, wanted) in fields::families(service).iter().enumerate() {
            let asked = ips.get(i).cloned().unwrap_or_default();
            if !asked.is_empty() {
                let Ok(ip) = asked.parse::<IpAddr>() else {
                    continue; // validation says so
                };
                if held.contains(&ip) {
                    continue;
                }
                let value = go_strings(&ips);
                self.addresses
                    .take(ip, service, dry_run)
                    .await
                    .map_err(|e| {
                        let detail = format!("failed to allocate IP {ip}: {e}");
                        let path = spec().child("clusterIPs");
                        invalid(service, FieldError::invalid(&path, value, detail))
                    })?;
                taken.addresses.push(ip);
                continue;
            }
            let ip = self
                .addresses
                .take_any(wanted, service, dry_run)
                .await
                .map_err(|e| match e {
                    // Whatever hinders an address object from being made, upstream says that the
                    // Service is at fault.
                    AllocationError::Failed(status) => {
                        let detail = format!("failed to allocate IP: {status}");
                        let path = spec().child("clusterIPs");
                        let value = go_strings(&[String::new()]);
                        invalid(service, FieldError::invalid(&path, value, detail))
                    }
                    e => Status::internal(format!("failed to allocate a serviceIP: {e}")),
                })?;
            taken.addresses.push(ip);
            let text = ip.to_string();
            match ips.get_mut(i) {
                Some(slot) => *slot = text,
                None => ips.push(text),
            }
        }
        if let Some(first) = ips.first().cloned() {
            let spec = fields::spec_mut(service);
            spec.insert("clusterIP".into(), json!(first));
            spec.insert("clusterIPs".into(), json!(ips));
        }
        Ok(())
    }

    /// A free port; in a dry run only a number that stands for one, upstream's: it need be no
    /// port number.
    async fn any_port(&self, dry_run: bool, taken: &Taken) -> Result<i64, PortError> {
        const BEFORE_FIRST: i64 = 32768;
        match dry_run {
            true => Ok(taken.ports.last().map_or(BEFORE_FIRST, |last| *last) + 1),
            false => self.ports.take_any().await.map(i64::from),
        }
    }

    /// The number that the i-th port of a Service gets, if it is not what it asked for and has.
    async fn node_port(
        &self,
        service: &Value,
        i: usize,
        wanted: Wanted,
        dry_run: bool,
        taken: &mut Taken,
    ) -> Result<Option<i64>, Status> {
        let number = match wanted {
            Wanted::Nothing => return Ok(None),
            Wanted::Share(number) => return Ok(Some(number)),
            Wanted::Number(number) => {
                let got = match dry_run && taken.ports.contains(&number) {
                    // Not even this write's own ports are in the bitmap then.
                    true => Err(PortError::Taken),
                    false => self.ports.take(number, dry_run).await,
                };
                let got = got.map_err(|e| {
                    let path = spec().child("ports").index(i).child("nodePort");
                    let value = BadValue::Raw(number.to_string());
                    invalid(service, FieldError::invalid(&path, value, e.to_string()))
                })?;
                match got {
                    Some(number) => number.into(),
                    None => return Ok(Some(number)),
                }
            }
            Wanted::Any => self
                .any_port(dry_run, taken)
                .await
                .map_err(|e| Status::internal(format!("failed to allocate a nodePort: {e}")))?,
        };
        taken.ports.insert(number);
        Ok(Some(number))
    }

    async fn node_ports(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
        taken: &mut Taken,
    ) -> Result<(), Status> {
        if fields::may_have_node_ports(service) {
            let mut ports = Ports::of(service, old);
            for i in 0..fields::ports(service).len() {
                let wanted = ports.wanted(service, &taken.ports, i);
                let number = self.node_port(service, i, wanted, dry_run, taken).await?;
                if let Some(number) = number {
                    service["spec"]["ports"][i]["nodePort"] = json!(number);
                }
                ports.done(service, i)?;
            }
        }
        let held = old.map(fields::node_ports).unwrap_or_default();
        if fields::needs_health_check_port(service) {
            let asked = fields::health_check_port(service);
            if asked == 0 {
                let number = self.any_port(dry_run, taken).await.map_err(|e| {
                    Status::internal(format!("failed to allocate a HealthCheck NodePort: {e}"))
                })?;
                taken.ports.insert(number);
                fields::spec_mut(service).insert("healthCheckNodePort".into(), json!(number));
            } else if !held.iter().any(|held| i64::from(*held) == asked) {
                let got = self.ports.take(asked, dry_run).await.map_err(|e| {
                    Status::internal(format!(
                        "failed to allocate requested HealthCheck NodePort {asked}: {e}"
                    ))
                })?;
                taken.ports.extend(got.map(i64::from));
            }
        }
        Ok(())
    }

    async fn allocate(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Option<Undo>, Status> {
        self.families(service, old)?;
        let held = old.map(fields::addresses).unwrap_or_default();
        let mut taken = Taken::default();
        let mut done = self.cluster_ips(service, &held, dry_run, &mut taken).await;
        if done.is_ok() {
            done = self.node_ports(service, old, dry_run, &mut taken).await;
        }
        let undo = (!dry_run).then(|| self.undo(service, taken));
        match done {
            Ok(()) => Ok(undo),
            Err(e) => {
                if let Some(undo) = undo {
                    undo().await;
                }
                Err(e)
            }
        }
    }

    fn undo(&self, service: &Value, taken: Taken) -> Undo {
        let (addresses, ports) = (self.addresses.clone(), self.ports.clone());
        let m = meta(service);
        let (namespace, name) = (m.namespace().to_owned(), m.name().to_owned());
        Box::new(move || {
            Box::pin(async move {
                for ip in taken.addresses {
                    addresses.release(ip, &namespace, &name).await;
                }
                let taken = taken.ports.into_iter().map(u16::try_from);
                ports.release(taken.filter_map(Result::ok)).await;
            })
        })
    }

    async fn release(&self, service: &Value, addresses: BTreeSet<IpAddr>, ports: BTreeSet<u16>) {
        let m = meta(service);
        for ip in addresses {
            self.addresses.release(ip, m.namespace(), m.name()).await;
        }
        self.ports.release(ports).await;
    }
}

impl Hooks for ServiceHooks {
    fn takes_more(&self) -> bool {
        true
    }

    fn begin_create<'a>(
        &'a self,
        cx: &'a Context<'a>,
        service: &'a mut Value,
    ) -> BoxFuture<'a, Result<Option<Undo>, Status>> {
        Box::pin(async move {
            fields::normalize_cluster_ips(service, None);
            self.allocate(service, None, cx.dry_run).await
        })
    }

    fn begin_update<'a>(
        &'a self,
        cx: &'a Context<'a>,
        service: &'a mut Value,
        old: &'a Value,
    ) -> BoxFuture<'a, Result<Option<Undo>, Status>> {
        Box::pin(async move {
            if !cx.subresource.is_empty() {
                return Ok(None);
            }
            fields::patch_allocated(service, old);
            fields::normalize_cluster_ips(service, Some(old));
            self.allocate(service, Some(old), cx.dry_run).await
        })
    }

    fn after_update<'a>(&'a self, service: &'a Value, old: &'a Value) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let addresses = &fields::addresses(old) - &fields::addresses(service);
            let ports = &fields::node_ports(old) - &fields::node_ports(service);
            self.release(old, addresses, ports).await;
        })
    }

    fn after_delete<'a>(&'a self, service: &'a Value) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.release(
                service,
                fields::addresses(service),
                fields::node_ports(service),
            )
            .await;
        })
    }
}
