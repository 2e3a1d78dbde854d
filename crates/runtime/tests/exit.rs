//! Nothing of this crate is left in the process once the last member has stopped. Alone in its process.
#![cfg(target_os = "linux")]
// Outside of a test's own function these are as welcome as inside.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use hearsay_runtime::proto::Event;
use hearsay_runtime::{Listener, Options, start};

struct Deaf;
impl Listener for Deaf {
    fn event(&self, _: Event) {}
}

fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "hearsay").count()
}

fn sockets() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

#[tokio::test]
async fn one_thread_while_anybody_lives_and_none_after() {
    for _ in 0..3 {
        let before = sockets();
        assert_eq!(threads(), 0);
        let mut handles = Vec::new();
        for i in 0..20 {
            let mut options = Options::new(format!("m{i}"));
            options.seeds = vec!["127.0.0.1:9".to_owned()];
            handles.push(start(options, Arc::new(Deaf)).await.unwrap());
        }
        assert_eq!(threads(), 1, "one worker, however many members");
        for handle in &handles {
            handle.stop().await;
        }
        let mut tries = 0;
        while threads() > 0 && tries < 500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            tries += 1;
        }
        assert_eq!(threads(), 0, "handles may outlive their member");
        assert_eq!(sockets(), before);
        drop(handles);
    }
}
