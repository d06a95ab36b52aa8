//! Work in a pod's namespace, and in one's own without entering anything.

use std::sync::mpsc::channel;
use std::thread;

use netns::{Dial, Fence, FenceError, Workplace};

use crate::support::{here, scratch};

/// Where a job runs, and on which thread.
fn place(workplace: &Workplace, fence: &Fence) -> Result<(u64, thread::ThreadId), FenceError> {
    let (sender, receiver) = channel();
    let job = || (here(), thread::current().id());
    workplace.submit(fence, job, move |result| sender.send(result).unwrap())?;
    receiver.recv().unwrap()
}

#[test]
fn a_pods_work_is_done_by_the_fence_and_ones_own_by_the_caller() {
    let (fence, netns) = (Fence::new(1).unwrap(), scratch());
    let inside = fence.run(&netns, here).unwrap();
    let pod = Workplace::from(netns.clone());
    let (seen, thread) = place(&pod, &fence).unwrap();
    assert_eq!(seen, inside);
    assert_ne!(thread, thread::current().id());
    assert_eq!(place(&Workplace::Own, &fence).unwrap(), (here(), thread::current().id()));
    assert_eq!(pod.pod().unwrap().id(), netns.id());
    assert!(Workplace::Own.pod().is_none());
}

#[test]
fn who_stays_at_home_needs_no_fence() {
    let closed = Fence::closed();
    assert_eq!(place(&Workplace::Own, &closed).unwrap().0, here());
    let error = place(&scratch().into(), &closed).unwrap_err();
    assert!(matches!(error, FenceError::Closed), "{error}");
}

#[test]
fn sockets_are_made_where_the_work_is() {
    let (netns, to) = (scratch(), "127.0.0.1:1".parse().unwrap());
    let dial = Dial { to, mark: Some(0x539), from: None };
    let ours = Workplace::Own.dial_socket(&dial).unwrap();
    let pods = Workplace::from(netns).dial_socket(&dial).unwrap();
    assert_eq!((ours.mark().unwrap(), pods.mark().unwrap()), (0x539, 0x539));
    // Nobody has set loopback up in the pod; here it is, and nobody listens.
    assert_eq!(pods.connect(&to.into()).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    assert_ne!(ours.connect(&to.into()).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
}
