//! Programs whose WebSocket somebody else wrote, as servers and as clients.

use std::{
    env,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

use crate::{ledger::Ledger, port, process::Process};

/// A library or program that speaks WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The npm package `ws`.
    Node,
    /// The PyPI package `websockets`, on asyncio.
    Websockets,
    /// The PyPI package `aiohttp`.
    Aiohttp,
    /// tokio-tungstenite.
    Tungstenite,
    /// As a server only: nginx as reverse proxy in front of Node.
    Nginx,
    /// As a client only: a page in headless Chromium.
    Chromium,
}

impl Kind {
    /// Why it cannot run here, if it cannot.
    pub fn missing(self) -> Option<&'static str> {
        let (there, what) = match self {
            Self::Node => (node_modules().join("ws").is_dir(), "the npm package ws"),
            Self::Websockets | Self::Aiohttp => (python().exists(), "the Python packages"),
            Self::Tungstenite => (true, ""),
            Self::Nginx => (
                find("nginx").is_some() && node_modules().join("ws").is_dir(),
                "nginx, or the npm package ws",
            ),
            Self::Chromium => (find("chromium").is_some(), "chromium"),
        };
        (!there).then_some(what)
    }

    /// Whether it can send a message in fragments of the driver's choice.
    pub fn fragments(self) -> bool {
        !matches!(self, Self::Aiohttp | Self::Chromium)
    }

    /// Whether it can send a ping.
    pub fn pings(self) -> bool {
        self != Self::Chromium
    }

    /// Whether it can compress messages.
    pub fn deflates(self) -> bool {
        self != Self::Tungstenite
    }

    /// Whether a client of this kind may close with such a code.
    pub fn closes_with(self, code: u16) -> bool {
        self != Self::Chromium || code == 1000 || code >= 3000
    }

    /// Whether it keeps a ledger of its own as a client.
    pub fn counts(self) -> bool {
        self != Self::Chromium
    }

    /// Whether it learns the status of a handshake that failed.
    pub fn learns_status(self) -> bool {
        self != Self::Chromium
    }
}

/// A server on a port of its own.
pub struct Server {
    pub port: u16,
    pub process: Process,
    /// Behind nginx: the server that it passes everything to.
    pub backend: Option<Box<Server>>,
    /// Removed after the process.
    _folder: Scratch,
}

impl Server {
    pub fn start(kind: Kind) -> Self {
        Self::start_at(kind, Ipv4Addr::LOCALHOST.into(), false, &|_| {})
    }

    /// A server that accepts permessage-deflate.
    pub fn start_deflating(kind: Kind) -> Self {
        Self::start_at(kind, Ipv4Addr::LOCALHOST.into(), true, &|_| {})
    }

    /// Starts a server that listens on `address`; `adapt` may change how it is started.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    pub fn start_at(
        kind: Kind,
        address: IpAddr,
        deflate: bool,
        adapt: &dyn Fn(&mut Command),
    ) -> Self {
        let (port, folder) = (port::free(), Scratch::new("server"));
        let backend = (kind == Kind::Nginx)
            .then(|| Box::new(Self::start_at(Kind::Node, address, deflate, adapt)));
        let mut command = match kind {
            Kind::Node => node("server.cjs"),
            Kind::Websockets => python_script("websockets_server.py"),
            Kind::Aiohttp => python_script("aiohttp_server.py"),
            Kind::Tungstenite => Command::new(binary("tungstenite-server")),
            Kind::Nginx => nginx(folder.path(), port, backend.as_ref().expect("started").port),
            Kind::Chromium => panic!("Chromium is a client"),
        };
        if kind != Kind::Nginx {
            command.args([address.to_string(), port.to_string()]);
            if deflate {
                command.arg("deflate");
            }
        }
        adapt(&mut command);
        let mut process = Process::start(command);
        if kind == Kind::Nginx {
            crate::within(std::time::Duration::from_secs(10), || {
                std::net::TcpStream::connect((address, port)).map_err(|error| error.to_string())
            });
        } else {
            assert!(process.answer().contains("ready"), "{}", process.errors());
        }
        Self {
            port,
            process,
            backend,
            _folder: folder,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("ws://127.0.0.1:{}{path}", self.port)
    }

    /// What passed through its sockets so far (through those of the server behind nginx).
    pub fn ledger(&mut self) -> Ledger {
        match &mut self.backend {
            Some(backend) => backend.ledger(),
            None => ledger(&mut self.process),
        }
    }
}

/// A client that does what it is asked.
pub struct Client {
    pub kind: Kind,
    pub process: Process,
    /// Removed after the process.
    _folder: Scratch,
}

impl Client {
    pub fn start(kind: Kind) -> Self {
        Self::start_with(kind, &|_| {})
    }

    /// Starts a client; `adapt` may change how.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    pub fn start_with(kind: Kind, adapt: &dyn Fn(&mut Command)) -> Self {
        let folder = Scratch::new("client");
        let mut command = match kind {
            Kind::Node => node("client.cjs"),
            Kind::Websockets => python_script("websockets_client.py"),
            Kind::Aiohttp => python_script("aiohttp_client.py"),
            Kind::Tungstenite => Command::new(binary("tungstenite-client")),
            Kind::Chromium => {
                let mut command = node("chromium.cjs");
                command.arg(folder.path());
                command
            }
            Kind::Nginx => panic!("nginx is a server"),
        };
        adapt(&mut command);
        let mut process = Process::start(command);
        if kind == Kind::Chromium {
            process.answer();
        }
        Self {
            kind,
            process,
            _folder: folder,
        }
    }

    /// The `process` label of its connections.
    pub fn name(&self) -> String {
        if self.kind == Kind::Chromium {
            "chromium".to_owned()
        } else {
            self.process.name()
        }
    }

    /// Asks, and returns its answer.
    ///
    /// # Panics
    ///
    /// If it could not do it.
    pub fn ask(&mut self, request: &Value) -> Value {
        ask(&mut self.process, request)
    }

    /// Opens a WebSocket; the status that the server answered, 0 if it is not told.
    ///
    /// # Panics
    ///
    /// If it could not ask.
    pub fn open(&mut self, url: &str) -> u64 {
        let answer = self.ask(&json!({ "do": "open", "url": url }));
        answer["status"].as_u64().expect("a status")
    }

    /// Opens a WebSocket and offers permessage-deflate.
    ///
    /// # Panics
    ///
    /// If it could not ask.
    pub fn open_deflating(&mut self, url: &str) -> u64 {
        let answer = self.ask(&json!({ "do": "open", "url": url, "deflate": true }));
        answer["status"].as_u64().expect("a status")
    }

    /// What passed through its sockets so far.
    pub fn ledger(&mut self) -> Ledger {
        ledger(&mut self.process)
    }
}

fn ask(process: &mut Process, request: &Value) -> Value {
    process.say(&request.to_string());
    let answer: Value = serde_json::from_str(&process.answer()).expect("an answer is JSON");
    assert!(
        answer["error"].is_null(),
        "{request}: {}",
        answer["error"].as_str().unwrap_or_default()
    );
    answer
}

fn ledger(process: &mut Process) -> Ledger {
    Ledger::from_json(&ask(process, &json!({ "do": "ledger" })))
}

/// A program of this crate.
///
/// # Panics
///
/// If this program is not one of cargo's test programs.
pub fn binary(name: &str) -> PathBuf {
    let test = env::current_exe().expect("this program has a path");
    test.ancestors()
        .nth(2)
        .expect("target/PROFILE/deps")
        .join(name)
}

/// A Python program of the tests.
pub fn python_script(name: &str) -> Command {
    let mut command = Command::new(python());
    command.arg("-B").arg(here().join("python").join(name));
    command
}

fn node(name: &str) -> Command {
    let mut command = Command::new("node");
    command
        .arg(here().join("node").join(name))
        .env("NODE_PATH", node_modules());
    command
}

fn nginx(folder: &Path, port: u16, backend: u16) -> Command {
    let shown = folder.display();
    // One process: what is killed is what holds the sockets.
    let config = format!(
        "daemon off; master_process off; pid {shown}/pid; error_log stderr crit;
         events {{ worker_connections 4096; }}
         http {{
           access_log off; client_body_temp_path {shown}/a; proxy_temp_path {shown}/b;
           fastcgi_temp_path {shown}/c; uwsgi_temp_path {shown}/d; scgi_temp_path {shown}/e;
           server {{
             listen 127.0.0.1:{port}; keepalive_timeout 30s;
             location / {{
               proxy_pass http://127.0.0.1:{backend}; proxy_http_version 1.1;
               proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
               proxy_set_header Host $http_host; proxy_read_timeout 300s;
             }}
           }}
         }}"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).expect("the folder can be written");
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(&file)
        .args(["-e", "stderr"]);
    command
}

/// A folder for one use, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// # Panics
    ///
    /// If it cannot be made.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("{name}-{}-{number}", std::process::id());
        let folder = binary("e2e-scratch").join(folder);
        std::fs::create_dir_all(&folder).expect("target can be written");
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn python() -> PathBuf {
    named("WSMON_E2E_PYTHON", "../target/e2e/venv/bin/python")
}

fn node_modules() -> PathBuf {
    named("WSMON_E2E_NODE_PATH", "../target/e2e/node/node_modules")
}

fn named(variable: &str, otherwise: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| here().join(otherwise), PathBuf::from)
}

/// A program on the search path.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
