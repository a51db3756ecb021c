//! service-lb-controller: services of type LoadBalancer get addresses from the cloud.

mod plan;

use std::net::IpAddr;
use std::sync::Arc;

use client::events::{EventType, Recorder, reference};
use client::informer::{Event, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, ObjectKey};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{LoadBalancerStatus, Service};

use super::Context;
use crate::provider::Provider;
use plan::{Action, FINALIZER};

pub fn start(context: Context) -> Option<BoxFuture<'static, ()>> {
    context.provider.load_balancers()?;
    let services = context.informers.get::<Service>();
    let queue = Queue::<ObjectKey>::new();
    let events = queue.clone();
    services.add_handler(move |event: &Event<Service>| events.add(event.key()));
    let controller = Arc::new(Controller {
        api: Api::all(&context.client),
        store: services.store().clone(),
        provider: context.provider,
        recorder: context.recorder,
    });
    let (workers, stop) = (context.service_workers, context.stop);
    Some(
        async move {
            if stop
                .run_until_cancelled(services.wait_synced())
                .await
                .is_none()
            {
                return;
            }
            queue
                .run(workers, &stop, move |key: ObjectKey| {
                    let controller = Arc::clone(&controller);
                    async move { controller.sync(&key).await.map(|()| Requeue::No) }
                })
                .await;
        }
        .boxed(),
    )
}

struct Controller {
    api: Api<Service>,
    store: Store<Service>,
    provider: Arc<dyn Provider>,
    recorder: Recorder,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<()> {
        // A service that is gone had its balancer taken down before: the finalizer saw to it.
        let Some(service) = self.store.get_key(key) else {
            return Ok(());
        };
        match plan::action(&service) {
            Action::Nothing => Ok(()),
            Action::Ensure => self.ensure(&service).await,
            Action::CleanUp => self.clean_up(&service).await,
        }
    }

    async fn ensure(&self, service: &Service) -> anyhow::Result<()> {
        let Some(balancers) = self.provider.load_balancers() else {
            return Ok(());
        };
        let mut service = service.clone();
        if !plan::has_finalizer(&service) {
            service
                .metadata
                .finalizers
                .get_or_insert_default()
                .push(FINALIZER.to_owned());
            service = self.update(&service).await?;
            self.normal(&service, "EnsuringLoadBalancer", "Ensuring load balancer");
        }
        let balanced = plan::balanced(&service);
        match balancers.ensure(&balanced, &self.taken(&service)).await {
            Ok(addresses) if addresses == balanced.present => Ok(()),
            Ok(addresses) => {
                self.set_addresses(&service, &addresses).await?;
                self.normal(&service, "EnsuredLoadBalancer", "Ensured load balancer");
                Ok(())
            }
            Err(error) => {
                let message =
                    format!("Error syncing load balancer: failed to ensure load balancer: {error}");
                let about = reference(&service);
                self.recorder.event(
                    &about,
                    EventType::Warning,
                    "SyncLoadBalancerFailed",
                    &message,
                );
                Err(error.into())
            }
        }
    }

    /// Addresses of all other services.
    fn taken(&self, service: &Service) -> Vec<IpAddr> {
        let others = self
            .store
            .filter(|other| other.metadata.uid != service.metadata.uid);
        others
            .iter()
            .flat_map(|other| plan::addresses(other))
            .collect()
    }

    async fn clean_up(&self, service: &Service) -> anyhow::Result<()> {
        let mut service = service.clone();
        if let Some(balancers) = self.provider.load_balancers() {
            balancers.ensure_deleted(&plan::balanced(&service)).await?;
        }
        if !plan::addresses(&service).is_empty() {
            service = self.set_addresses(&service, &[]).await?;
        }
        if plan::has_finalizer(&service) {
            if let Some(finalizers) = &mut service.metadata.finalizers {
                finalizers.retain(|finalizer| finalizer != FINALIZER);
            }
            let service = self.update(&service).await?;
            self.normal(&service, "DeletedLoadBalancer", "Deleted load balancer");
        }
        Ok(())
    }

    fn within(&self, service: &Service) -> Api<Service> {
        self.api
            .within(service.metadata.namespace.as_deref().unwrap_or_default())
    }

    async fn update(&self, service: &Service) -> client::Result<Service> {
        self.within(service).replace(service).await
    }

    async fn set_addresses(
        &self,
        service: &Service,
        addresses: &[IpAddr],
    ) -> client::Result<Service> {
        let mut service = service.clone();
        let ingress = plan::ingress(addresses);
        service.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus {
            ingress: (!ingress.is_empty()).then_some(ingress),
        });
        self.within(&service).replace_status(&service).await
    }

    fn normal(&self, service: &Service, reason: &str, message: &str) {
        self.recorder
            .event(&reference(service), EventType::Normal, reason, message);
    }
}
