use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::*;
use crate::plugins::fake;

/// Takes plugins of version 1, and tells who comes and goes.
struct Taker(mpsc::UnboundedSender<(&'static str, String)>, Mutex<u32>);

impl Handler for Taker {
    fn validate(&self, plugin: &Plugin) -> Result<(), String> {
        let fits = plugin.versions.contains(&"1".to_owned());
        fits.then_some(()).ok_or_else(|| "not version 1".to_owned())
    }
    fn register<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, Result<(), String>> {
        let mut failures = self.1.lock();
        if *failures > 0 {
            *failures -= 1;
            return Box::pin(async { Err("not yet".to_owned()) });
        }
        let _ = self.0.send(("came", plugin.endpoint.clone()));
        Box::pin(async { Ok(()) })
    }
    fn deregister(&self, plugin: &Plugin) {
        let _ = self.0.send(("went", plugin.endpoint.clone()));
    }
}

fn start(
    dir: &Path,
    failures: u32,
) -> (
    CancellationToken,
    mpsc::UnboundedReceiver<(&'static str, String)>,
) {
    let (told, heard) = mpsc::unbounded_channel();
    let handler: Arc<dyn Handler> = Arc::new(Taker(told, Mutex::new(failures)));
    let metrics = Arc::new(Metrics::new("n", true).unwrap());
    let registry = Registry::new(dir.to_owned(), Handlers::from([("K", handler)]), metrics);
    let stop = CancellationToken::new();
    tokio::spawn(registry.run(stop.clone()));
    (stop, heard)
}

#[tokio::test]
async fn plugins_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let (before, mut told) = fake::register(&dir.path().join("a"), "K", "a", "/x", &["1"]);
    let (stop, mut heard) = start(dir.path(), 1);
    let refused = told.recv().await.unwrap();
    assert!(!refused.plugin_registered);
    assert_eq!(
        refused.error,
        "RegisterPlugin error -- plugin registration failed with err: not yet"
    );
    assert_eq!(heard.recv().await, Some(("came", "/x".into())));
    assert!(told.recv().await.unwrap().plugin_registered);

    // Without an endpoint of its own it serves where it registers.
    let path = dir.path().join("deep/b");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let (_second, _told) = fake::register(&path, "K", "b", "", &["1"]);
    let own = path.to_string_lossy().into_owned();
    assert_eq!(heard.recv().await, Some(("came", own)));
    drop(before);
    assert_eq!(heard.recv().await, Some(("went", "/x".into())));
    stop.cancel();
}

#[tokio::test]
async fn what_is_of_no_use_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let (stop, _heard) = start(dir.path(), 0);
    let path = dir.path().join("a");
    let (_a, mut told) = fake::register(&path, "Other", "a", "", &["1"]);
    let socket = path.to_string_lossy();
    assert_eq!(
        told.recv().await.unwrap().error,
        format!(
            "RegisterPlugin error -- no handler registered for plugin type: Other at socket {socket}"
        )
    );
    let (_b, mut told) = fake::register(&dir.path().join("b"), "K", "b", "", &["2"]);
    assert_eq!(
        told.recv().await.unwrap().error,
        "RegisterPlugin error -- plugin validation failed with err: not version 1"
    );
    stop.cancel();
}

#[test]
fn another_socket_of_the_same_name_is_another_plugin() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let bind = || std::os::unix::net::UnixListener::bind(&path).unwrap();
    let now = Instant::now();
    let mut known = Known::default();
    let listener = bind();
    let first = sockets::find(dir.path());
    let register = |seen: &BTreeMap<PathBuf, Identity>| Step::Register(path.clone(), seen[&path]);
    assert_eq!(known.plan(&first, now), [register(&first)]);
    known.begin(&path, first[&path]);
    assert_eq!(known.plan(&first, now), []);
    let plugin = Plugin {
        kind: "K".into(),
        name: "a".into(),
        endpoint: "e".into(),
        versions: vec![],
    };
    known.0.get_mut(&path).unwrap().stage = Stage::Registered(plugin.clone());
    assert_eq!(known.plan(&first, now), []);
    drop(listener);
    fs::remove_file(&path).unwrap();
    let _listener = bind();
    let second = sockets::find(dir.path());
    assert_eq!(
        known.plan(&second, now),
        [Step::Deregister(plugin), register(&second)]
    );
    // It fails, twice: the pause doubles.
    let mut fail = || {
        let pause = known.begin(&path, second[&path]);
        let again = now + pause;
        known.0.get_mut(&path).unwrap().stage = Stage::Failed { again, pause };
        assert_eq!(known.plan(&second, now), []);
        assert_eq!(known.plan(&second, again), [register(&second)]);
        pause
    };
    assert_eq!(fail(), FIRST_PAUSE);
    assert_eq!(fail(), FIRST_PAUSE * 2);
}
