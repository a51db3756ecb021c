//! How devices are, as their drivers tell (KEP-4680). What a driver has not confirmed for a while
//! is not known any more. Pure but for its lock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use grpc::plugins::dra::health as pb;
use parking_lot::Mutex;

/// How long a driver's word holds where it does not say.
const HOLDS: Duration = Duration::from_secs(30);
/// The API's limit of a message, in bytes.
const MAX_MESSAGE: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Healthy,
    Unhealthy,
    Unknown,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Unhealthy => "Unhealthy",
            Self::Unknown => "Unknown",
        }
    }
}

#[derive(Debug, Clone)]
struct Told {
    state: State,
    message: String,
    holds: Duration,
    at: Instant,
}

/// A device of a driver: pool and name.
pub type DeviceKey = (String, String);

/// All devices, by driver.
#[derive(Debug, Default)]
pub struct Health(Mutex<HashMap<String, HashMap<DeviceKey, Told>>>);

impl Health {
    /// Takes in what a driver tells of all its devices, and returns those of which something else
    /// is known now.
    pub fn update(
        &self,
        driver: &str,
        devices: &[pb::DeviceHealth],
        now: Instant,
    ) -> Vec<DeviceKey> {
        let mut all = self.0.lock();
        let known = all.entry(driver.to_owned()).or_default();
        let mut changed = Vec::new();
        let mut told: Vec<DeviceKey> = Vec::new();
        for device in devices {
            let id = device.device.clone().unwrap_or_default();
            let key = (id.pool_name, id.device_name);
            let holds = u64::try_from(device.health_check_timeout_seconds).unwrap_or_default();
            let new = Told {
                state: match device.health() {
                    pb::HealthStatus::Healthy => State::Healthy,
                    pb::HealthStatus::Unhealthy => State::Unhealthy,
                    pb::HealthStatus::Unknown => State::Unknown,
                },
                message: shortened(&device.message),
                holds: if holds == 0 {
                    HOLDS
                } else {
                    Duration::from_secs(holds)
                },
                at: now,
            };
            let same = known.get(&key).is_some_and(|old| {
                (old.state, &old.message, old.holds) == (new.state, &new.message, new.holds)
            });
            if !same {
                changed.push(key.clone());
            }
            told.push(key.clone());
            known.insert(key, new);
        }
        for (key, old) in known.iter_mut().filter(|(key, _)| !told.contains(key)) {
            if old.state != State::Unknown && now.duration_since(old.at) > old.holds {
                old.state = State::Unknown;
                old.message.clear();
                changed.push(key.clone());
            }
        }
        changed
    }

    pub fn get(&self, driver: &str, device: &DeviceKey, now: Instant) -> (State, Option<String>) {
        let all = self.0.lock();
        let told = all.get(driver).and_then(|devices| devices.get(device));
        match told.filter(|told| now.saturating_duration_since(told.at) <= told.holds) {
            Some(told) => (
                told.state,
                Some(told.message.clone()).filter(|message| !message.is_empty()),
            ),
            None => (State::Unknown, None),
        }
    }

    /// Nothing is known of a driver's devices any more.
    pub fn clear(&self, driver: &str) {
        self.0.lock().remove(driver);
    }
}

fn shortened(message: &str) -> String {
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    let end = (0..=MAX_MESSAGE - 3)
        .rev()
        .find(|end| message.is_char_boundary(*end));
    format!("{}...", &message[..end.unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, health: pb::HealthStatus, seconds: i64) -> pb::DeviceHealth {
        pb::DeviceHealth {
            device: Some(pb::DeviceIdentifier {
                pool_name: "p".into(),
                device_name: name.into(),
            }),
            health: health.into(),
            health_check_timeout_seconds: seconds,
            message: "m".repeat(2000),
            ..Default::default()
        }
    }

    #[test]
    fn a_drivers_word_holds_for_a_while() {
        let (health, start) = (Health::default(), Instant::now());
        let key = |name: &str| ("p".to_owned(), name.to_owned());
        let a = device("a", pb::HealthStatus::Healthy, 0);
        let b = device("b", pb::HealthStatus::Unhealthy, 100);
        assert_eq!(
            health.update("d", &[a.clone(), b.clone()], start),
            [key("a"), key("b")]
        );
        assert_eq!(health.update("d", &[a, b.clone()], start), []);
        assert_eq!(health.get("d", &key("a"), start).0, State::Healthy);
        assert_eq!(health.get("d", &key("a"), start).1.unwrap().len(), 1024);
        let later = start + Duration::from_secs(31);
        assert_eq!(health.get("d", &key("a"), later).0, State::Unknown);
        assert_eq!(health.get("d", &key("b"), later).0, State::Unhealthy);
        assert_eq!(health.update("d", &[b], later), [key("a")]);
        health.clear("d");
        assert_eq!(health.get("d", &key("b"), later), (State::Unknown, None));
    }
}
