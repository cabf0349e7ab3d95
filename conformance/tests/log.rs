//! The log's contract over each implementation.

mod sled {
    use gravity_conformance::log_suite::OnDisk;
    use gravity_log::HotStore;

    gravity_conformance::log_rulings!(OnDisk::new(HotStore::Sled));
}

mod raw {
    use gravity_conformance::log_suite::OnDisk;
    use gravity_log::HotStore;

    gravity_conformance::log_rulings!(OnDisk::new(HotStore::Raw));
}

mod memory {
    use gravity_conformance::log_suite::InMemory;

    gravity_conformance::log_rulings!(InMemory::default());
}
