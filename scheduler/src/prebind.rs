//! Pods whose PreBind is under way, and how that is called off (upstream's `podsInPreBind`):
//! nobody but the scheduler knows of their nodes yet.

use std::collections::HashMap;

use tokio_util::sync::CancellationToken;

/// By the pods' UIDs.
#[derive(Debug, Default)]
pub struct InPreBind(HashMap<Box<str>, CancellationToken>);

impl InPreBind {
    /// PreBind begins; the token tells when it is called off.
    pub fn begin(&mut self, uid: &str) -> CancellationToken {
        let called_off = CancellationToken::new();
        self.0.insert(uid.into(), called_off.clone());
        called_off
    }

    /// Calls it off; false when it is not under way, or not any longer.
    pub fn call_off(&self, uid: &str) -> bool {
        let Some(called_off) = self.0.get(uid) else {
            return false;
        };
        called_off.cancel();
        true
    }

    /// PreBind has ended; false when it was called off meanwhile.
    pub fn end(&mut self, uid: &str) -> bool {
        let under_way = self.0.remove(uid);
        under_way.is_some_and(|called_off| !called_off.is_cancelled())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_cannot_be_called_off() {
        let mut pods = InPreBind::default();
        let (first, _) = (pods.begin("a"), pods.begin("b"));
        assert!(pods.call_off("a") && pods.call_off("a"));
        assert!(first.is_cancelled());
        assert!(!pods.end("a"), "the binding must not go on");
        assert!(pods.end("b"));
        assert!(!pods.call_off("a") && !pods.call_off("b"));
    }
}
