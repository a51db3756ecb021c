//! Members of an etcd, and the little that a driver asks of them directly, through
//! etcd's own JSON gateway.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::http::next;
use super::process::Process;
use super::{etcd_binary, free_ports};

/// Between two looks at a member that starts.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long a start may take.
const START: Duration = Duration::from_secs(120);
/// Bounds one request.
const LIMIT: Duration = Duration::from_secs(60);

/// One member.
#[derive(Debug)]
pub struct Member {
    name: String,
    client: u16,
    peer: u16,
    directory: PathBuf,
    process: Option<Process>,
}

/// One to several members of one cluster.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    flags: Vec<String>,
}

impl Etcd {
    /// Members below a directory, not started yet; what is in their data directories
    /// (`DIRECTORY/m0/data`, ...) stays. `more` are further flags.
    ///
    /// # Errors
    ///
    /// When there are no free ports.
    pub fn new(directory: &Path, members: usize, more: &[&str]) -> Result<Self> {
        let mut list = Vec::new();
        for n in 0..members {
            let [client, peer] = free_ports()?;
            let name = format!("m{n}");
            let directory = directory.join(&name);
            std::fs::create_dir_all(&directory)?;
            list.push(Member {
                name,
                client,
                peer,
                directory,
                process: None,
            });
        }
        Ok(Self {
            members: list,
            flags: more.iter().map(ToString::to_string).collect(),
        })
    }

    /// Starts every member that does not run, and waits until they answer.
    ///
    /// # Errors
    ///
    /// When one does not come up.
    pub async fn start(&mut self) -> Result<()> {
        for n in 0..self.members.len() {
            if self.members[n].process.is_none() {
                self.start_member(n)?;
            }
        }
        for n in 0..self.members.len() {
            self.ready(n).await?;
        }
        Ok(())
    }

    /// Starts one member and does not wait.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start_member(&mut self, n: usize) -> Result<()> {
        let cluster: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{}=http://127.0.0.1:{}", member.name, member.peer))
            .collect();
        let member = &self.members[n];
        let mut arguments = vec![
            format!("--name={}", member.name),
            format!("--data-dir={}", member.directory.join("data").display()),
            format!("--listen-client-urls=http://127.0.0.1:{}", member.client),
            format!("--advertise-client-urls=http://127.0.0.1:{}", member.client),
            format!("--listen-peer-urls=http://127.0.0.1:{}", member.peer),
            format!(
                "--initial-advertise-peer-urls=http://127.0.0.1:{}",
                member.peer
            ),
            format!("--initial-cluster={}", cluster.join(",")),
            "--log-level=error".into(),
            // As deploy/ has it, so that an idle watch says how far it is.
            "--experimental-watch-progress-notify-interval=5s".into(),
        ];
        arguments.extend(self.flags.iter().cloned());
        let log = member.directory.join("log");
        self.members[n].process = Some(Process::start(&etcd_binary()?, &arguments, &log)?);
        Ok(())
    }

    /// Waits until a member answers.
    ///
    /// # Errors
    ///
    /// When it ends, or does not.
    pub async fn ready(&mut self, n: usize) -> Result<()> {
        let start = std::time::Instant::now();
        loop {
            if let Some(process) = &mut self.members[n].process {
                process.check()?;
            }
            let health = async {
                let gateway = self.gateway(n).await?;
                gateway
                    .ask("/v3/kv/range", &json!({"key": "aGVhbHRo"}))
                    .await
            };
            match health.await {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > START => return Err(error),
                Err(_) => tokio::time::sleep(INTERVAL).await,
            }
        }
    }

    /// `kill -9` of one member.
    pub fn kill(&mut self, n: usize) {
        if let Some(mut process) = self.members[n].process.take() {
            process.kill();
        }
    }

    /// Ends every member in order.
    ///
    /// # Errors
    ///
    /// When one cannot be asked to.
    pub fn stop(&mut self) -> Result<()> {
        for member in &mut self.members {
            if let Some(mut process) = member.process.take() {
                process.stop()?;
            }
        }
        Ok(())
    }

    /// What `--etcd-servers` takes.
    pub fn servers(&self) -> String {
        let servers: Vec<_> = (0..self.members.len())
            .map(|n| format!("http://{}", self.address(n)))
            .collect();
        servers.join(",")
    }

    /// Which member leads now.
    ///
    /// # Errors
    ///
    /// When none says so.
    pub async fn leader(&self) -> Result<usize> {
        for n in 0..self.members.len() {
            if self.members[n].process.is_none() {
                continue;
            }
            let Ok(gateway) = self.gateway(n).await else {
                continue;
            };
            let Ok(status) = gateway.ask("/v3/maintenance/status", &json!({})).await else {
                continue;
            };
            let leader = &status["leader"];
            if leader.is_string() && leader == &status["header"]["member_id"] {
                return Ok(n);
            }
        }
        bail!("no member says that it leads")
    }

    /// Where a member serves clients, as `host:port`.
    pub fn address(&self, n: usize) -> String {
        format!("127.0.0.1:{}", self.members[n].client)
    }

    /// A connection to the gateway of a member.
    ///
    /// # Errors
    ///
    /// When it does not listen.
    pub async fn gateway(&self, n: usize) -> Result<Gateway> {
        let authority = self.address(n);
        let tcp = TcpStream::connect(&authority).await?;
        tcp.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(tcp)).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Gateway {
            sender: Mutex::new(sender),
            authority,
        })
    }
}

/// etcd's JSON gateway, one request at a time.
#[derive(Debug)]
pub struct Gateway {
    sender: Mutex<SendRequest<Full<Bytes>>>,
    authority: String,
}

impl Gateway {
    /// One call, by its path (`/v3/kv/put`).
    ///
    /// # Errors
    ///
    /// With etcd's message, when it refuses.
    pub async fn ask(&self, path: &str, body: &Value) -> Result<Value> {
        let request = Request::post(path)
            .header(header::HOST, &self.authority)
            .body(Full::new(Bytes::from(body.to_string())))?;
        let mut sender = self.sender.lock().await;
        let call = async {
            sender.ready().await?;
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        let (status, bytes) = tokio::time::timeout(LIMIT, call)
            .await
            .with_context(|| format!("etcd's {path} takes too long"))??;
        ensure!(
            status.is_success(),
            "etcd's {path}: {}",
            String::from_utf8_lossy(&bytes)
        );
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Watches, until `each` answer's reader has enough. The connection cannot be used
    /// for anything else afterwards.
    ///
    /// # Errors
    ///
    /// When etcd refuses or ends the watch.
    pub async fn watch(
        &self,
        body: &Value,
        mut each: impl FnMut(&Value) -> Result<bool>,
    ) -> Result<()> {
        let request = Request::post("/v3/watch")
            .header(header::HOST, &self.authority)
            .body(Full::new(Bytes::from(body.to_string())))?;
        let mut sender = self.sender.lock().await;
        sender.ready().await?;
        let mut answer = sender.send_request(request).await?.into_body();
        let mut pending = Vec::new();
        loop {
            let chunk = tokio::time::timeout(LIMIT, next(&mut answer)).await;
            let chunk = chunk.context("etcd's watch has nothing more to say")??;
            pending.extend_from_slice(&chunk.context("etcd ends the watch")?);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = pending.drain(..=end).collect();
                if each(&serde_json::from_slice(&line)?)? {
                    return Ok(());
                }
            }
        }
    }

    /// Writes a value and returns its revision.
    ///
    /// # Errors
    ///
    /// When etcd refuses.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<u64> {
        revision(&self.ask("/v3/kv/put", &put(key, value)).await?)
    }

    /// Writes several values in one transaction.
    ///
    /// # Errors
    ///
    /// When etcd refuses.
    pub async fn put_all(&self, values: &[(String, Vec<u8>)]) -> Result<u64> {
        let puts: Vec<_> = values
            .iter()
            .map(|(key, value)| json!({"requestPut": put(key, value)}))
            .collect();
        revision(&self.ask("/v3/kv/txn", &json!({"success": puts})).await?)
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn get(&self, key: &str) -> Result<Vec<u8>> {
        let answer = self
            .ask("/v3/kv/range", &json!({"key": BASE64.encode(key)}))
            .await?;
        let value = answer["kvs"][0]["value"]
            .as_str()
            .with_context(|| format!("{key} is not in etcd"))?;
        Ok(BASE64.decode(value)?)
    }

    /// Deletes everything below a prefix and returns how much that was.
    ///
    /// # Errors
    ///
    /// When etcd refuses.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<u64> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().context("a prefix")? += 1;
        let range = json!({"key": BASE64.encode(prefix), "range_end": BASE64.encode(end)});
        let answer = self.ask("/v3/kv/deleterange", &range).await?;
        Ok(match answer["deleted"].as_str() {
            Some(count) => count.parse()?,
            None => 0,
        })
    }

    /// The revision of the store.
    ///
    /// # Errors
    ///
    /// When etcd does not answer.
    pub async fn revision(&self) -> Result<u64> {
        let any = json!({"key": BASE64.encode("/"), "limit": 1, "keys_only": true});
        revision(&self.ask("/v3/kv/range", &any).await?)
    }

    /// Forgets what was before a revision.
    ///
    /// # Errors
    ///
    /// When etcd refuses.
    pub async fn compact(&self, revision: u64) -> Result<()> {
        let request = json!({"revision": revision.to_string(), "physical": true});
        self.ask("/v3/kv/compaction", &request).await.map(|_| ())
    }

    /// Gives the space of what was forgotten back.
    ///
    /// # Errors
    ///
    /// When etcd refuses.
    pub async fn defragment(&self) -> Result<()> {
        self.ask("/v3/maintenance/defragment", &json!({}))
            .await
            .map(|_| ())
    }

    /// Ends every alarm, such as NOSPACE.
    ///
    /// # Errors
    ///
    /// When etcd refuses.
    pub async fn disarm(&self) -> Result<()> {
        let alarms = self
            .ask("/v3/maintenance/alarm", &json!({"action": "GET"}))
            .await?;
        for alarm in alarms["alarms"].as_array().into_iter().flatten() {
            let request = json!({"action": "DEACTIVATE", "memberID": alarm["memberID"], "alarm": alarm["alarm"]});
            self.ask("/v3/maintenance/alarm", &request).await?;
        }
        Ok(())
    }
}

fn put(key: &str, value: &[u8]) -> Value {
    json!({"key": BASE64.encode(key), "value": BASE64.encode(value)})
}

fn revision(answer: &Value) -> Result<u64> {
    let revision = answer["header"]["revision"].as_str();
    Ok(revision.context("etcd's answer has no revision")?.parse()?)
}
