//! Somebody who signs tokens and publishes his keys: a server on this machine, and the program
//! `openssl`, so that what signs is not what checks.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What tokens say that are good for [`Issuer::settings`].
pub(crate) const ISSUER: &str = "https://id.example.org";
pub(crate) const AUDIENCE: &str = "queue";

/// A key pair of `openssl`.
pub(crate) struct Signer {
    /// The name of the key.
    pub(crate) kid: &'static str,
    algorithm: &'static str,
    dir: TempDir,
}

impl Signer {
    /// A new key for an algorithm such as `RS256`.
    pub(crate) fn new(algorithm: &'static str, kid: &'static str) -> Signer {
        let signer = Signer { kid, algorithm, dir: TempDir::new().unwrap() };
        let kind: &[&str] = match algorithm {
            "ES256" => &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "ES384" => &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            "EdDSA" => &["ED25519"],
            _ => &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        };
        let file = signer.key();
        let args = [&["genpkey", "-out", file.to_str().unwrap(), "-algorithm"], kind].concat();
        openssl(&args, b"");
        signer
    }

    /// The key as it is published.
    pub(crate) fn jwk(&self) -> Value {
        let file = self.key();
        let der = openssl(&["pkey", "-pubout", "-outform", "DER", "-in", path(&file)], b"");
        let tail = |bytes: usize| &der[der.len() - bytes..];
        let mut jwk = match self.algorithm {
            "ES256" | "ES384" => {
                let (curve, size) =
                    if self.algorithm == "ES256" { ("P-256", 32) } else { ("P-384", 48) };
                let (x, y) = tail(2 * size).split_at(size);
                json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
            }
            "EdDSA" => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(tail(32)) }),
            _ => {
                let text = openssl(&["rsa", "-noout", "-modulus", "-in", path(&file)], b"");
                let text = String::from_utf8(text).unwrap();
                let hex = text.trim().strip_prefix("Modulus=").unwrap();
                json!({ "kty": "RSA", "n": encode(&from_hex(hex)), "e": "AQAB" })
            }
        };
        jwk["kid"] = self.kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// The public key as a PEM file has it.
    pub(crate) fn public_pem(&self) -> Vec<u8> {
        openssl(&["pkey", "-pubout", "-in", path(&self.key())], b"")
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": self.algorithm, "typ": "JWT", "kid": self.kid });
        self.token_with(&header, claims)
    }

    /// A token with this header, signed by this key's own algorithm.
    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", encode(&signature))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let file = self.key();
        if self.algorithm == "EdDSA" {
            // This one reads its input twice.
            let input = self.dir.path().join("message");
            fs::write(&input, message).unwrap();
            let args = ["pkeyutl", "-sign", "-rawin", "-inkey", path(&file), "-in", path(&input)];
            return openssl(&args, b"");
        }
        let hash = match &self.algorithm[2..] {
            "256" => "-sha256",
            "384" => "-sha384",
            _ => "-sha512",
        };
        let mut args = vec!["dgst", hash, "-binary", "-sign", path(&file)];
        if self.algorithm.starts_with("PS") {
            args.extend(["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]);
        }
        let signature = openssl(&args, message);
        match self.algorithm {
            "ES256" => fixed(&signature, 32),
            "ES384" => fixed(&signature, 48),
            _ => signature,
        }
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }
}

/// The part of a token that is signed.
pub(crate) fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Claims that are good now.
pub(crate) fn claims(more: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "iat": now(),
        "exp": now() + 600,
        "tid": "acme",
        "scope": "codeq:claim codeq:heartbeat codeq:abandon codeq:nack codeq:result",
        "eventTypes": ["*"],
    });
    let Value::Object(more) = more else { panic!("claims are an object") };
    for (name, value) in more {
        claims[name] = value;
    }
    claims
}

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

/// Runs `openssl`, and answers what it writes.
pub(crate) fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut process = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs; install it: apt-get install openssl (or: brew install openssl)");
    // A program that takes no input may have ended already.
    let _ = process.stdin.take().unwrap().write_all(input);
    let output = process.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {told}");
    output.stdout
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// The two numbers of an ECDSA signature without the wrapping that openssl gives them.
fn fixed(der: &[u8], size: usize) -> Vec<u8> {
    let number = |at: usize| {
        assert_eq!(der[at], 2, "an integer");
        let length = usize::from(der[at + 1]);
        (&der[at + 2..at + 2 + length], at + 2 + length)
    };
    let pad = |number: &[u8]| {
        let significant = &number[number.len().saturating_sub(size)..];
        [&vec![0; size - significant.len()], significant].concat()
    };
    let (r, next) = number(if der[1] < 128 { 2 } else { 3 });
    let (s, _) = number(next);
    [pad(r), pad(s)].concat()
}

/// A server that publishes keys.
pub(crate) struct Issuer {
    pub(crate) url: String,
    shared: Arc<Mutex<Published>>,
}

struct Published {
    status: &'static str,
    headers: String,
    body: String,
    delay: Duration,
    /// How often somebody asked.
    count: usize,
    is_down: bool,
}

impl Issuer {
    /// Publishes the keys of these.
    pub(crate) fn start(signers: &[&Signer]) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys?of=all", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Published {
            status: "200 OK",
            headers: String::new(),
            body: String::new(),
            delay: Duration::ZERO,
            count: 0,
            is_down: false,
        }));
        let published = Arc::clone(&shared);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let published = Arc::clone(&published);
                thread::spawn(move || answer(connection, &published));
            }
        });
        let issuer = Issuer { url, shared };
        issuer.publish(signers);
        issuer
    }

    /// Publishes the keys of these from now on.
    pub(crate) fn publish(&self, signers: &[&Signer]) {
        let keys = signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>();
        self.answer("200 OK", "", &json!({ "keys": keys }).to_string());
    }

    /// Answers this from now on.
    pub(crate) fn answer(&self, status: &'static str, headers: &str, body: &str) {
        let mut shared = self.shared.lock().unwrap();
        shared.status = status;
        shared.headers = headers.to_owned();
        shared.body = body.to_owned();
    }

    /// Adds a header to what is answered.
    pub(crate) fn add_header(&self, header: &str) {
        self.shared.lock().unwrap().headers.push_str(&format!("{header}\r\n"));
    }

    /// Takes that long for an answer from now on.
    pub(crate) fn hesitate(&self, delay: Duration) {
        self.shared.lock().unwrap().delay = delay;
    }

    /// Answers nobody, or everybody again.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.shared.lock().unwrap().is_down = is_down;
    }

    /// How often somebody asked for the keys.
    pub(crate) fn count(&self) -> usize {
        self.shared.lock().unwrap().count
    }

    /// The settings of a provider that accepts the tokens of [`claims`].
    pub(crate) fn settings(&self) -> Value {
        json!({ "jwksUrl": self.url, "issuer": ISSUER, "audience": AUDIENCE })
    }
}

fn answer(mut connection: TcpStream, published: &Mutex<Published>) {
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(length) => request.extend_from_slice(&part[..length]),
        }
    }
    assert!(request.starts_with(b"GET /keys?of=all "), "{}", String::from_utf8_lossy(&request));
    let (text, delay) = {
        let mut published = published.lock().unwrap();
        published.count += 1;
        if published.is_down {
            return;
        }
        let Published { status, headers, body, .. } = &*published;
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n");
        (format!("{head}Connection: close\r\n\r\n{body}"), published.delay)
    };
    thread::sleep(delay);
    let _ = connection.write_all(text.as_bytes());
}
