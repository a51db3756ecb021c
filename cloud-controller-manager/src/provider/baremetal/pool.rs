//! Which address of the pools a service gets. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::provider::BalancedService;

/// The address that a service keeps or gets; an error says why there is none.
pub fn choose(
    pools: &[IpNet],
    service: &BalancedService,
    taken: &[IpAddr],
) -> Result<IpAddr, String> {
    let pooled = |ip: &IpAddr| pools.iter().any(|pool| pool.contains(ip));
    let free = |ip: &IpAddr| !taken.contains(ip);
    if let Some(asked) = service.requested {
        return match (pooled(&asked), free(&asked)) {
            (true, true) => Ok(asked),
            (true, false) => Err(format!("{asked} belongs to another service")),
            (false, _) => Err(format!("{asked} is in no declared pool")),
        };
    }
    // An address once given stays, so that clients keep finding the service.
    if let Some(present) = service.present.iter().find(|ip| pooled(ip) && free(ip)) {
        return Ok(*present);
    }
    pools
        .iter()
        .flat_map(IpNet::hosts)
        .find(free)
        .ok_or_else(|| "every address of the declared pools is in use".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(requested: Option<&str>, present: &[&str]) -> BalancedService {
        BalancedService {
            namespace: "default".into(),
            name: "web".into(),
            requested: requested.map(|ip| ip.parse().unwrap()),
            present: present.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_given_once_and_kept() {
        let pools = ["192.0.2.0/30".parse().unwrap()];
        assert_eq!(
            choose(&pools, &service(None, &[]), &[]),
            Ok(ip("192.0.2.1"))
        );
        let taken = [ip("192.0.2.1")];
        assert_eq!(
            choose(&pools, &service(None, &[]), &taken),
            Ok(ip("192.0.2.2"))
        );
        assert_eq!(
            choose(&pools, &service(None, &["192.0.2.2"]), &[]),
            Ok(ip("192.0.2.2"))
        );
        let all = [ip("192.0.2.1"), ip("192.0.2.2")];
        assert!(choose(&pools, &service(None, &[]), &all).is_err());
    }

    #[test]
    fn an_address_that_is_asked_for_must_be_ours_and_free() {
        let pools = ["192.0.2.0/30".parse().unwrap()];
        assert_eq!(
            choose(&pools, &service(Some("192.0.2.2"), &[]), &[]),
            Ok(ip("192.0.2.2"))
        );
        assert!(choose(&pools, &service(Some("192.0.2.2"), &[]), &[ip("192.0.2.2")]).is_err());
        assert!(choose(&pools, &service(Some("198.51.100.1"), &[]), &[]).is_err());
    }
}
