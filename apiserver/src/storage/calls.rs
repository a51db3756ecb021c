//! What is counted of calls to etcd, under the names of gRPC's own metrics for clients.
//!
//! What must not be here: the calls (`etcd/`).

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tonic::Code;

/// A method of etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Range,
    Txn,
    Compact,
    LeaseGrant,
    Status,
    Watch,
}

impl Method {
    const ALL: [Method; 6] = [
        Method::Range,
        Method::Txn,
        Method::Compact,
        Method::LeaseGrant,
        Method::Status,
        Method::Watch,
    ];

    /// Method, service and type.
    fn labels(self) -> [&'static str; 3] {
        let (method, service) = match self {
            Method::Range => ("Range", "etcdserverpb.KV"),
            Method::Txn => ("Txn", "etcdserverpb.KV"),
            Method::Compact => ("Compact", "etcdserverpb.KV"),
            Method::LeaseGrant => ("LeaseGrant", "etcdserverpb.Lease"),
            Method::Status => ("Status", "etcdserverpb.Maintenance"),
            Method::Watch => ("Watch", "etcdserverpb.Watch"),
        };
        let kind = match self {
            Method::Watch => "bidi_stream",
            _ => "unary",
        };
        [method, service, kind]
    }
}

/// A method's counters.
struct Counters {
    started: IntCounter,
    sent: IntCounter,
    received: IntCounter,
    fine: IntCounter,
}

pub struct Calls {
    /// By method.
    counters: [Counters; Method::ALL.len()],
    handled: IntCounterVec,
}

/// As Go writes it.
fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    }
}

impl Calls {
    /// Registers them.
    pub fn new(registry: &Registry) -> prometheus::Result<Calls> {
        const LABELS: [&str; 4] = ["grpc_method", "grpc_service", "grpc_type", "grpc_code"];
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let started = counter(
            "grpc_client_started_total",
            "Calls that were begun.",
            &LABELS[..3],
        )?;
        let sent = counter(
            "grpc_client_msg_sent_total",
            "Messages that were sent in calls.",
            &LABELS[..3],
        )?;
        let received = counter(
            "grpc_client_msg_received_total",
            "Messages that were received in calls.",
            &LABELS[..3],
        )?;
        let handled = counter(
            "grpc_client_handled_total",
            "Calls that have ended, by how.",
            &LABELS,
        )?;
        Ok(Calls {
            counters: Method::ALL.map(|method| {
                let labels = method.labels();
                let [name, service, kind] = labels;
                Counters {
                    started: started.with_label_values(&labels),
                    sent: sent.with_label_values(&labels),
                    received: received.with_label_values(&labels),
                    fine: handled.with_label_values(&[name, service, kind, "OK"]),
                }
            }),
            handled,
        })
    }

    fn of(&self, method: Method) -> &Counters {
        &self.counters[method as usize]
    }

    pub fn started(&self, method: Method) {
        self.of(method).started.inc();
    }

    pub fn sent(&self, method: Method) {
        self.of(method).sent.inc();
    }

    pub fn received(&self, method: Method) {
        self.of(method).received.inc();
    }

    pub fn handled(&self, method: Method, code: Code) {
        if code == Code::Ok {
            return self.of(method).fine.inc();
        }
        let [name, service, kind] = method.labels();
        let labels = [name, service, kind, &code_name(code)];
        self.handled.with_label_values(&labels).inc();
    }

    /// Counts a call of one question and one answer.
    pub async fn unary<T>(
        &self,
        method: Method,
        call: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, tonic::Status> {
        self.started(method);
        self.sent(method);
        let answer = call.await;
        match &answer {
            Ok(_) => {
                self.received(method);
                self.handled(method, Code::Ok);
            }
            Err(status) => self.handled(method, status.code()),
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_are_counted_by_how_they_end() {
        let registry = Registry::new();
        let calls = Calls::new(&registry).unwrap();
        let fine = calls.unary(Method::Txn, async { Ok(()) }).await;
        assert!(fine.is_ok());
        let gone = async { Err::<(), _>(tonic::Status::cancelled("")) };
        assert!(calls.unary(Method::Txn, gone).await.is_err());
        let handled = |code: &str| {
            let labels = ["Txn", "etcdserverpb.KV", "unary", code];
            calls.handled.with_label_values(&labels).get()
        };
        assert_eq!((handled("OK"), handled("Canceled")), (1, 1));
        assert_eq!(calls.of(Method::Txn).started.get(), 2);
        assert_eq!(calls.of(Method::Txn).received.get(), 1);
    }
}
