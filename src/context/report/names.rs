//! What files and directories are, by their names: credentials, weights, environments, caches.

use super::content::Look;
use super::findings::Category;

/// What something seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guess {
    pub(super) category: Category,
    /// For people: "`x` looks like ...".
    pub(super) what: &'static str,
    /// What the content must have.
    pub(super) look: Look,
}

const KEY: &str = "a private key";
const ENVIRONMENT: &str = "environment variables with values";
const KUBERNETES: &str = "Kubernetes credentials";
const AWS: &str = "AWS credentials";
const AZURE: &str = "Azure credentials";
const GOOGLE: &str = "Google Cloud credentials";
const REGISTRY: &str = "registry credentials";
const KUBE_TEXT: Look = Look::AnyOf(&["client-key-data:", "token:", "password:"]);
const DOCKER_TEXT: Look = Look::AnyOf(&["\"auth\"", "\"identitytoken\"", "\"password\""]);

/// Credentials by name.
const FILES: &[(&str, &str, Look)] = &[
    (".env", ENVIRONMENT, Look::Assignments),
    (".envrc", ENVIRONMENT, Look::Assignments),
    (".netrc", "passwords of hosts", Look::AnyOf(&["password"])),
    ("_netrc", "passwords of hosts", Look::AnyOf(&["password"])),
    (".pypirc", "credentials for a package index", Look::AnyOf(&["password"])),
    (".npmrc", "credentials for a package registry", Look::AnyOf(&["_auth", "_password"])),
    (".yarnrc.yml", "credentials for a package registry", Look::AnyOf(&["npmAuthToken", "npmAuthIdent"])),
    (".git-credentials", "git credentials", Look::Anything),
    (".pgpass", "database passwords", Look::Anything),
    (".my.cnf", "database passwords", Look::AnyOf(&["password"])),
    (".htpasswd", "password hashes", Look::Anything),
    (".dockercfg", REGISTRY, DOCKER_TEXT),
    (".s3cfg", AWS, Look::AnyOf(&["secret_key"])),
    (".boto", "cloud credentials", Look::AnyOf(&["secret_access_key", "refresh_token"])),
    ("id_rsa", KEY, Look::Key),
    ("id_dsa", KEY, Look::Key),
    ("id_ecdsa", KEY, Look::Key),
    ("id_ed25519", KEY, Look::Key),
    ("application_default_credentials.json", GOOGLE, Look::AnyOf(&["\"private_key\"", "\"refresh_token\""])),
    ("credentials.db", GOOGLE, Look::AnyOf(&["refresh_token", "private_key"])),
    ("msal_token_cache.json", AZURE, Look::Anything),
    ("msal_token_cache.bin", AZURE, Look::Anything),
    ("kubeconfig", KUBERNETES, KUBE_TEXT),
    ("terraform.tfstate", "Terraform state, which holds secrets", Look::Anything),
    ("kaggle.json", "Kaggle credentials", Look::AnyOf(&["\"key\""])),
];

/// Credentials by the end of the path.
const PATHS: &[(&str, &str, Look)] = &[
    (".aws/credentials", AWS, Look::AnyOf(&["aws_secret_access_key", "aws_session_token"])),
    (".aws/config", AWS, Look::AnyOf(&["aws_secret_access_key"])),
    (".azure/accessTokens.json", AZURE, Look::Anything),
    (".azure/service_principal_entries.json", AZURE, Look::Anything),
    (".docker/config.json", REGISTRY, DOCKER_TEXT),
    (".kube/config", KUBERNETES, KUBE_TEXT),
    (".streamlit/secrets.toml", "application secrets", Look::Assignments),
    (".dbt/profiles.yml", "database passwords", Look::AnyOf(&["password:", "pass:", "private_key"])),
    (".huggingface/token", "a Hugging Face token", Look::Anything),
    ("huggingface/token", "a Hugging Face token", Look::AnyOf(&["hf_"])),
];

/// Credentials by the ending of the name.
const ENDINGS: &[(&str, &str, Look)] = &[
    ("p12", "a keystore", Look::Anything),
    ("pfx", "a keystore", Look::Anything),
    ("jks", "a keystore", Look::Anything),
    ("keystore", "a keystore", Look::Anything),
    ("kdbx", "a password store", Look::Anything),
    ("pem", KEY, Look::Key),
    ("key", KEY, Look::Key),
    ("ppk", KEY, Look::Key),
    ("env", ENVIRONMENT, Look::Assignments),
    ("kubeconfig", KUBERNETES, KUBE_TEXT),
    ("json", "cloud credentials", Look::Json),
];

/// What names of credentials have in them, and the endings of files whose names are only a hint.
const HINTS: &[&str] =
    &["credential", "secret", "_key", "-key", "key_", "token", "passw", "service_account", "service-account"];
const HINT_ENDINGS: &[&str] = &["", "ini", "cfg", "conf", "txt", "yml", "yaml", "toml", "json", "properties"];
/// What is in credentials, and hardly anywhere else.
const SECRETS: Look = Look::AnyOf(&[
    "PRIVATE KEY-----",
    "aws_secret_access_key",
    "AWS_SECRET_ACCESS_KEY=",
    "\"private_key\"",
    "\"client_secret\"",
    "\"clientSecret\"",
    "AccountKey=",
]);

/// What marks an `.env` file as an example.
const EXAMPLES: &[&str] = &["example", "sample", "template", "dist", "defaults", "default", "tmpl", "schema"];

/// Endings of model weights, and of files that are weights only if they are large.
const WEIGHTS: &[&str] =
    &["pt", "pth", "ckpt", "safetensors", "onnx", "h5", "keras", "gguf", "ggml", "tflite", "mlmodel", "caffemodel"];
const MAYBE_WEIGHTS: &[&str] = &["pkl", "pickle", "joblib", "bin", "hdf5", "npz", "pb", "model", "cbm", "ubj"];
const LARGE_WEIGHTS: u64 = 5_000_000;

/// Directories by name.
const DIRECTORIES: &[(&str, Category)] = &[
    (".git", Category::History),
    (".hg", Category::History),
    (".svn", Category::History),
    (".venv", Category::VirtualEnvironment),
    ("__pycache__", Category::Cache),
    (".mypy_cache", Category::Cache),
    (".pytest_cache", Category::Cache),
    (".ruff_cache", Category::Cache),
    (".ipynb_checkpoints", Category::Cache),
    (".hypothesis", Category::Cache),
    (".tox", Category::Cache),
    (".nox", Category::Cache),
    (".eggs", Category::Cache),
    (".cache", Category::Cache),
    (".terraform", Category::Cache),
    ("node_modules", Category::Cache),
    ("htmlcov", Category::Cache),
    (".idea", Category::Cache),
    (".vscode", Category::Cache),
    ("mlruns", Category::Experiments),
    ("mlartifacts", Category::Experiments),
    ("wandb", Category::Experiments),
    ("lightning_logs", Category::Experiments),
    ("catboost_info", Category::Experiments),
    (".aim", Category::Experiments),
    (".neptune", Category::Experiments),
];

/// What a directory of this name is.
pub(super) fn directory(name: &[u8]) -> Option<Category> {
    // Nearly all names end here.
    if !matches!(name.first(), Some(b'.' | b'_' | b'n' | b'h' | b'm' | b'w' | b'l' | b'c')) {
        return None;
    }
    DIRECTORIES.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, category)| *category)
}

/// What a file seems to be.
pub(super) fn file(path: &[u8], name: &[u8], size: u64) -> Option<Guess> {
    let path = std::str::from_utf8(path).ok()?;
    let name = std::str::from_utf8(name).ok()?;
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    credentials(path, name, ending).or_else(|| weights(name, ending, size)).or_else(|| {
        let guess = Guess { category: Category::Notebook, what: "a notebook with large outputs", look: Look::Outputs };
        (ending == "ipynb").then_some(guess)
    })
}

fn credentials(path: &str, name: &str, ending: &str) -> Option<Guess> {
    let at = |tail: &str| path.strip_suffix(tail).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
    let found = FILES
        .iter()
        .find(|(known, ..)| *known == name)
        .or_else(|| PATHS.iter().find(|(tail, ..)| at(tail)))
        .or_else(|| ENDINGS.iter().find(|(known, ..)| *known == ending))
        .map(|(_, what, look)| (*what, *look));
    let found = found.filter(|(_, look)| *look != Look::Json || !is_hint(name, ending));
    let environment = || name.starts_with(".env.").then_some((ENVIRONMENT, Look::Assignments));
    let hint = || is_hint(name, ending).then_some(("credentials", SECRETS));
    let (what, look) = found.or_else(environment).or_else(hint)?;
    let is_example = what == ENVIRONMENT && name.split(['.', '-', '_']).any(|part| EXAMPLES.contains(&part));
    (!is_example).then_some(Guess { category: Category::Credentials, what, look })
}

fn is_hint(name: &str, ending: &str) -> bool {
    HINT_ENDINGS.contains(&ending) && {
        let name = name.to_lowercase();
        HINTS.iter().any(|hint| name.contains(hint))
    }
}

fn weights(name: &str, ending: &str, size: u64) -> Option<Guess> {
    let sure = WEIGHTS.contains(&ending) || name == "saved_model.pb";
    let found = sure || (size >= LARGE_WEIGHTS && MAYBE_WEIGHTS.contains(&ending));
    found.then_some(Guess { category: Category::Weights, what: "model weights", look: Look::Anything })
}
