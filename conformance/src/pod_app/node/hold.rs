//! Something is wrong with a file for a while.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::root::{Root, beside};

/// Pause between two times that a file is written again.
const BETWEEN: Duration = Duration::from_millis(50);
/// What is no configuration.
const RUBBISH: &[u8] = b"{\"name\": ";

/// Which file, and what is wrong with it.
#[derive(Debug, Args)]
pub(crate) struct Hold {
    /// Its path on the node, absolute and of at least three names.
    path: PathBuf,
    /// What is wrong.
    #[arg(long = "as", value_enum)]
    harm: Harm,
    /// The other text, or the other name.
    #[arg(long, default_value = "")]
    with: String,
    /// Nobody has to close the input: it ends by itself then.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Harm {
    /// It is not there.
    Absent,
    /// It has another text.
    Other,
    /// It cannot be understood.
    Rubbish,
    /// It has another name, in the same folder.
    Renamed,
    /// It is written again and again with the text that it has, in place and by a rename.
    Rewritten,
}

/// A file as it was.
struct Original {
    path: PathBuf,
    bytes: Vec<u8>,
    mode: u32,
}

impl Hold {
    pub(super) async fn run(self, root: &Root) -> anyhow::Result<()> {
        let original = Original::read(root.to_change(&self.path)?)?;
        let other = match self.harm {
            Harm::Renamed => original.free_name(&self.with)?,
            _ => original.path.clone(),
        };
        let wrong: &[u8] = if self.harm == Harm::Other { self.with.as_bytes() } else { RUBBISH };
        match self.harm {
            Harm::Absent => std::fs::remove_file(&original.path)?,
            Harm::Other | Harm::Rubbish => original.replace(wrong)?,
            Harm::Renamed => std::fs::rename(&original.path, &other)?,
            Harm::Rewritten => {}
        }
        println!("held");
        let over = async {
            tokio::select! {
                () = crate::pod_app::input_closed() => {}
                () = tokio::time::sleep(Duration::from_secs(self.seconds)) => {}
            }
        };
        match self.harm {
            Harm::Rewritten => original.again_and_again(over).await,
            Harm::Renamed => {
                over.await;
                std::fs::rename(&other, &original.path).context("give it its name back")
            }
            Harm::Absent | Harm::Other | Harm::Rubbish => {
                over.await;
                original.back((self.harm != Harm::Absent).then_some(wrong))
            }
        }
    }
}

impl Original {
    fn read(path: PathBuf) -> anyhow::Result<Self> {
        let what = || format!("read {}", path.display());
        let bytes = std::fs::read(&path).with_context(what)?;
        let mode = std::fs::metadata(&path).with_context(what)?.permissions().mode();
        Ok(Self { path, bytes, mode })
    }

    /// Another file of that name would be lost: nobody gives that one back.
    fn free_name(&self, name: &str) -> anyhow::Result<PathBuf> {
        let other = beside(&self.path, name)?;
        match std::fs::symlink_metadata(&other) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(other),
            Err(error) => Err(error).with_context(|| format!("look for {}", other.display())),
            Ok(_) => bail!("{} is there already", other.display()),
        }
    }

    /// Whoever has written the file meanwhile knows better.
    fn back(&self, wrong: Option<&[u8]>) -> anyhow::Result<()> {
        if std::fs::read(&self.path).ok().as_deref() == wrong {
            self.replace(&self.bytes)?;
        }
        Ok(())
    }

    /// Readers see the old bytes or the new ones.
    fn replace(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = self.path.with_file_name(format!(".{name}.conformance"));
        std::fs::write(&temporary, bytes)?;
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(self.mode))?;
        std::fs::rename(&temporary, &self.path)
            .with_context(|| format!("write {}", self.path.display()))
    }

    async fn again_and_again(&self, over: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::pin!(over);
        let mut times = 0_u32;
        loop {
            tokio::select! {
                () = &mut over => break,
                () = tokio::time::sleep(BETWEEN) => times += 1,
            }
            // For an instant a file that is written in place is empty, as some daemons do it.
            if times.is_multiple_of(2) { self.in_place()? } else { self.replace(&self.bytes)? }
        }
        self.replace(&self.bytes)?;
        println!("{times}");
        Ok(())
    }

    fn in_place(&self) -> anyhow::Result<()> {
        std::fs::write(&self.path, &self.bytes)
            .with_context(|| format!("write {}", Path::display(&self.path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_unless_somebody_has_written_it() {
        let folder = std::env::temp_dir().join(format!("hold-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("10-primary.conflist");
        std::fs::write(&path, "one").unwrap();
        let original = Original::read(path.clone()).unwrap();
        std::fs::remove_file(&path).unwrap();
        original.back(None).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        original.replace(RUBBISH).unwrap();
        original.back(Some(RUBBISH)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        std::fs::write(&path, "two").unwrap();
        original.back(Some(RUBBISH)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn no_other_file_loses_its_name() {
        let folder = std::env::temp_dir().join(format!("free-name-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["10-a.conflist", "20-b.conflist"] {
            std::fs::write(folder.join(name), name).unwrap();
        }
        let original = Original::read(folder.join("10-a.conflist")).unwrap();
        assert_eq!(original.free_name("05-a.conflist").unwrap(), folder.join("05-a.conflist"));
        for wrong in ["20-b.conflist", "10-a.conflist", "../05-a.conflist", ""] {
            assert!(original.free_name(wrong).is_err(), "{wrong:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn only_what_lies_deep_enough_is_held() {
        for path in ["", "/", "/etc", "/etc/passwd", "etc/cni/net.d", "/etc/cni/../passwd"] {
            let hold =
                Hold { path: path.into(), harm: Harm::Absent, with: String::new(), seconds: 0 };
            let error = hold.run(&Root::of_node()).await.unwrap_err().to_string();
            assert!(error.contains(&format!("{path:?}")), "{path:?}: {error}");
        }
    }
}
