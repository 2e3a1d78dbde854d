//! Names to addresses: `host:port`, IPv6 in brackets, DNS names with all their A and AAAA records.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use hearsay_proto::gossip::Seed;
use tokio::task::JoinSet;

/// Addresses taken of one name at most.
pub(crate) const ADDRESSES_MAX: usize = 64;

/// A `host:port` taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    host: String,
    pub(crate) port: u16,
}

impl Target {
    /// Takes `host:port` apart, IPv6 in brackets.
    ///
    /// # Errors
    /// What it must be.
    pub(crate) fn parse(text: &str) -> Result<Target, String> {
        let wrong = || format!("host:port, IPv6 in brackets; got '{text}'");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port =
            port.parse().ok().filter(|_| port.bytes().all(|b| b.is_ascii_digit())).ok_or_else(wrong)?;
        let inner = match host.strip_prefix('[') {
            Some(rest) => {
                rest.strip_suffix(']').filter(|ip| ip.parse::<Ipv6Addr>().is_ok()).ok_or_else(wrong)?
            }
            None => host,
        };
        let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let is_bracketed = inner.len() != host.len();
        if inner.is_empty() || inner.len() > 253 || !(is_bracketed || inner.bytes().all(name)) {
            return Err(wrong());
        }
        Ok(Target { host: inner.to_owned(), port })
    }

    /// Its address if no name service is needed.
    pub(crate) fn literal(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// All its addresses, at most [`ADDRESSES_MAX`], without repetition.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn resolve(&self, timeout: Duration) -> Result<Vec<SocketAddr>, String> {
        if let Some(address) = self.literal() {
            return Ok(vec![address]);
        }
        let found = tokio::time::timeout(timeout, tokio::net::lookup_host((self.host.as_str(), self.port)));
        let found = found
            .await
            .map_err(|_| format!("no answer from the name service within {} ms", timeout.as_millis()))?
            .map_err(|error| error.to_string())?;
        let mut addresses = Vec::new();
        for address in found.take(4 * ADDRESSES_MAX) {
            if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(addresses) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Resolves all seeds at once, each at most for `timeout`; in the order given. Only addresses that the own socket can
/// reach by its family are kept.
pub(crate) async fn resolve_seeds(seeds: &[String], timeout: Duration, local: SocketAddr) -> Vec<Seed> {
    let mut tasks = JoinSet::new();
    for (i, name) in seeds.iter().enumerate() {
        let name = name.clone();
        tasks.spawn(async move {
            let addresses = match Target::parse(&name) {
                Ok(target) => target.resolve(timeout).await.and_then(|found| reachable(found, local)),
                Err(must) => Err(format!("must be {must}")),
            };
            (i, Seed { name, addresses })
        });
    }
    let mut found = Vec::with_capacity(seeds.len());
    while let Some(done) = tasks.join_next().await {
        found.extend(done.ok());
    }
    found.sort_by_key(|(i, _)| *i);
    found.into_iter().map(|(_, seed)| seed).collect()
}

fn reachable(mut addresses: Vec<SocketAddr>, local: SocketAddr) -> Result<Vec<SocketAddr>, String> {
    let both = local.is_ipv6() && local.ip().is_unspecified();
    addresses.retain(|address| both || address.is_ipv4() == local.is_ipv4());
    if addresses.is_empty() {
        let family = if local.is_ipv4() { "IPv4" } else { "IPv6" };
        return Err(format!("no {family} address, and the member is bound to {local}"));
    }
    Ok(addresses)
}

/// The own address towards `seed`, or without one the private, then the global interface address (`J7`). Connecting a
/// UDP socket sends nothing: the system only chooses a route.
pub(crate) fn outward(seed: Option<SocketAddr>, local: SocketAddr) -> SocketAddr {
    let private = SocketAddr::from((Ipv4Addr::new(10, 255, 255, 255), 9));
    let global = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    let global6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9));
    let found = seed.into_iter().chain([private, global, global6]).find_map(|to| {
        let any =
            if to.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        if to.is_ipv6() && local.is_ipv4() {
            return None;
        }
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|own| own.ip()).filter(|ip| !ip.is_unspecified())
    });
    let loopback =
        if local.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
    SocketAddr::new(found.unwrap_or(loopback), local.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn local() -> SocketAddr {
        "127.0.0.1:9".parse().unwrap()
    }

    #[test]
    fn parses_names_and_addresses_and_names_what_is_wrong() {
        for good in ["a:1", "hearsay.default.svc:7946", "10.0.0.5:65535", "[::1]:7946", "a_b-c.d:0"] {
            assert_eq!(Target::parse(good).unwrap().to_string(), good);
        }
        for bad in
            ["", "a", ":1", "a:", "a:65536", "a:-1", "a:+1", "::1:7946", "[::1]", "[a]:1", "a b:1", "[::1:1"]
        {
            assert!(Target::parse(bad).unwrap_err().contains(bad), "{bad}");
        }
        assert!(Target::parse(&format!("{}:1", "a".repeat(254))).is_err());
    }

    #[tokio::test]
    async fn resolves_in_order_and_says_why_not() {
        let seeds = ["localhost:7", "127.0.0.2:8", "no-such-name.invalid:9", "nonsense", "[::1]:7"];
        let seeds: Vec<String> = seeds.iter().map(|s| (*s).to_owned()).collect();
        let found = resolve_seeds(&seeds, SOON, local()).await;
        assert_eq!(found.iter().map(|s| s.name.clone()).collect::<Vec<_>>(), seeds);
        let ok = |i: usize| found[i].addresses.clone();
        assert_eq!(ok(0), Ok(vec!["127.0.0.1:7".parse().unwrap()]));
        assert_eq!(ok(1), Ok(vec!["127.0.0.2:8".parse().unwrap()]));
        assert!(ok(2).is_err());
        assert!(ok(3).unwrap_err().contains("host:port"));
        assert!(ok(4).unwrap_err().contains("no IPv4 address"));
    }

    #[test]
    fn the_outward_address_follows_the_seed_and_keeps_the_port() {
        let any = "0.0.0.0:4711".parse().unwrap();
        let seed = Some("127.0.0.1:1".parse().unwrap());
        assert_eq!(outward(seed, any), "127.0.0.1:4711".parse().unwrap());
        let own = outward(None, any);
        assert!(!own.ip().is_unspecified());
        assert_eq!(own.port(), 4711);
    }
}
