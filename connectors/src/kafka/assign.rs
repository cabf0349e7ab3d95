//! The group's steps: assignments begin at the log's position, revocations commit what is durable and drop the rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gravity_model::port::source::{BreakKind, Position};
use gravity_model::{Fault, FaultKind, failpoint};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::config::commit_metadata;
use super::error::{fault_from, printable};
use super::native;
use super::open::check_commits;
use super::progress::{Assigned, Durable, Partition};
use super::reader::Reader;
use super::slots::{self, Begin};

/// Limit of a question to the broker while the group waits for our answer.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// A partition about to be read.
struct Beginning {
    slot: Arc<str>,
    begin: Begin,
    /// An accepted break, and where reading goes on behind it.
    broken: Option<(BreakKind, Position)>,
}

impl Reader {
    /// Takes partitions over: each begins where the log stands, never at the committed offset.
    pub(super) fn assign(&mut self, partitions: Vec<Partition>) -> Result<(), Fault> {
        self.check_group(&partitions)?;
        let positions = self.reading.book.positions();
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        let mut taken = Vec::with_capacity(partitions.len());
        for partition in &partitions {
            let Beginning { slot, begin, broken } = self.begin(&positions, partition)?;
            if !self.attach(&partition.0, partition.1) {
                let detail = format!("no queue for topic {} partition {}", partition.0, partition.1);
                return Err(Fault::new(FaultKind::Transient, "kafka-queue", self.assigning(), detail));
            }
            self.add(&mut list, partition, begin)?;
            taken.push((slot, begin, broken));
        }
        {
            let mut memory = self.reading.memory.lock();
            memory.read_topics.extend(partitions.iter().map(|(topic, _)| topic.clone()));
        }
        let mut state = self.reading.progress.state.lock();
        for (partition, (slot, begin, broken)) in partitions.into_iter().zip(taken) {
            self.assignments += 1;
            tracing::info!(source = %self.reading.source, slot = %slot, begin = ?begin, "partition taken over");
            let given = match begin {
                Begin::At { offset, .. } => Some(offset),
                Begin::Earliest | Begin::Latest => None,
            };
            let subject = Arc::from(partition.0.as_str());
            let assigned = Assigned { slot, subject, assignment: self.assignments, given, end: None };
            let partition = Arc::new(partition);
            if let Some((kind, position)) = broken {
                let revocations = self.reading.progress.revocations.load(Ordering::SeqCst);
                self.chunk.note_break(&partition, &assigned, revocations, (kind, position));
            }
            state.assigned.insert(partition, assigned);
        }
        drop(state);
        self.consumer.incremental_assign(&list).map_err(|error| fault_from(error, self.assigning()))
    }

    fn assigning(&self) -> String {
        format!("take over partitions of source {}", self.reading.source)
    }

    /// A new member may have come with another log: its commits tell. A broker that does not answer tells nothing.
    fn check_group(&self, partitions: &[Partition]) -> Result<(), Fault> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        match self.consumer.committed_offsets(list, ASK_LIMIT) {
            Ok(list) => check_commits(&list, &self.reading.source, &self.reading.group, self.reading.log_id).map(drop),
            Err(error) => {
                let error = printable(&error.to_string());
                tracing::debug!(source = %self.reading.source, error, "group's commits not read at take-over");
                Ok(())
            }
        }
    }

    fn begin(&self, positions: &[(String, Position)], partition: &Partition) -> Result<Beginning, Fault> {
        let grown = self.reading.memory.lock().read_topics.contains(&partition.0);
        let shown = slots::Partition {
            cluster: &self.reading.cluster,
            topic: &partition.0,
            partition: partition.1,
            topic_id: self.identity.id_of(&partition.0),
        };
        let accept = self.reading.accept;
        let found =
            slots::resolve(&self.reading.source, positions, shown, self.reading.start, grown, accept.recreated)?;
        let (slot, begin) = (found.slot, found.begin);
        // Sabotage: the broker's word counts, not the log's.
        if failpoint::sabotaged("kafka.trust_the_group")
            && let Some(offset) = self.committed(partition)
        {
            return Ok(Beginning { slot, begin: Begin::At { offset, leader_epoch: None }, broken: None });
        }
        if let Some((former, next)) = found.former {
            // The group's commits are of the topic that is gone: no hint of where to begin in this one.
            let (low, _) = self.watermarks(partition)?;
            let position = Position { next: low, detail: 0 };
            let begin = Begin::At { offset: low, leader_epoch: None };
            return Ok(Beginning { slot, begin, broken: Some((BreakKind::Recreated { former, next }, position)) });
        }
        if let Begin::At { offset, .. } = begin {
            return self.over_gap(slot, begin, partition, offset);
        }
        // The log has no record of it. Where a "latest" start began is remembered here and in our own commit, or what is
        // published between that start and the first record would be skipped by a restart.
        let hint = self.reading.memory.lock().begun.get(&*slot).copied();
        let hint = hint.or_else(|| self.reading.committed.get(partition).and_then(|o| u64::try_from(*o).ok()));
        let offset = match (hint, begin) {
            (Some(offset), _) => offset,
            (None, Begin::Latest) => self.watermarks(partition)?.1,
            (None, _) => return Ok(Beginning { slot, begin, broken: None }),
        };
        self.reading.memory.lock().begun.insert(slot.to_string(), offset);
        let durable = Durable { next: offset, leader_epoch: None, committed: hint.is_some() };
        self.reading.progress.state.lock().durable.insert(Arc::new(partition.clone()), durable);
        self.over_gap(slot, Begin::At { offset, leader_epoch: None }, partition, offset)
    }

    /// Where the operator accepts it, reading goes on behind what retention took.
    fn over_gap(&self, slot: Arc<str>, begin: Begin, partition: &Partition, offset: u64) -> Result<Beginning, Fault> {
        let low = if self.reading.accept.gap { self.watermarks(partition)?.0 } else { 0 };
        if low <= offset {
            return Ok(Beginning { slot, begin, broken: None });
        }
        let broken = (BreakKind::Gap { from: offset, to: low }, Position { next: low, detail: 0 });
        Ok(Beginning { slot, begin: Begin::At { offset: low, leader_epoch: None }, broken: Some(broken) })
    }

    /// Where the group stands on the broker: for a sabotage only, the log says where to begin.
    fn committed(&self, partition: &Partition) -> Option<u64> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&partition.0, partition.1);
        let found = self.consumer.committed_offsets(list, ASK_LIMIT).ok()?;
        match found.elements().first()?.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        }
    }

    /// First offset that the broker has, and the one behind its last.
    fn watermarks(&self, partition: &Partition) -> Result<(u64, u64), Fault> {
        let (low, high) = self
            .consumer
            .fetch_watermarks(&partition.0, partition.1, ASK_LIMIT)
            .map_err(|error| fault_from(error, self.assigning()))?;
        Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
    }

    fn add(&self, list: &mut TopicPartitionList, partition: &Partition, begin: Begin) -> Result<(), Fault> {
        let (offset, leader_epoch) = match begin {
            Begin::At { offset, leader_epoch } => {
                (Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX)), leader_epoch)
            }
            Begin::Earliest => (Offset::Beginning, None),
            Begin::Latest => (Offset::End, None),
        };
        let added: KafkaResult<()> = list.add_partition_offset(&partition.0, partition.1, offset);
        added.map_err(|error| fault_from(error, self.assigning()))?;
        if let Some(epoch) = leader_epoch {
            native::set_leader_epoch(list, &partition.0, partition.1, epoch);
        }
        Ok(())
    }

    /// Gives partitions back: nothing more of them is handed over, what is durable is committed first.
    pub(super) fn revoke(&mut self, partitions: &[Partition]) -> Result<(), Fault> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        self.reading.progress.revocations.fetch_add(1, Ordering::SeqCst);
        {
            let mut state = self.reading.progress.state.lock();
            for partition in partitions {
                state.assigned.remove(partition);
            }
        }
        if !self.consumer.assignment_lost() {
            let sent = self.commit_now(&|partition| partitions.contains(partition));
            self.await_commits(sent);
        }
        {
            let mut state = self.reading.progress.state.lock();
            for partition in partitions {
                state.durable.remove(partition);
            }
        }
        tracing::info!(source = %self.reading.source, partitions = partitions.len(), "partitions given back");
        let doing = format!("give back partitions of source {}", self.reading.source);
        self.consumer.incremental_unassign(&list).map_err(|error| fault_from(error, doing))
    }

    /// Sends what is durable and not committed yet; the number of answers to wait for, `None` when there was nothing.
    pub(super) fn commit_now(&self, which: &dyn Fn(&Partition) -> bool) -> Option<u64> {
        let metadata = commit_metadata(self.reading.log_id);
        let mut list = TopicPartitionList::new();
        let mut epochs = Vec::new();
        {
            let mut state = self.reading.progress.state.lock();
            for (partition, durable) in state.durable.iter_mut().filter(|(p, d)| !d.committed && which(p)) {
                let mut element = list.add_partition(&partition.0, partition.1);
                if element.set_offset(Offset::Offset(i64::try_from(durable.next).unwrap_or(i64::MAX))).is_err() {
                    continue;
                }
                element.set_metadata(&metadata);
                durable.committed = true;
                epochs.extend(durable.leader_epoch.map(|epoch| (Arc::clone(partition), epoch)));
            }
        }
        if list.count() == 0 {
            return None;
        }
        for (partition, epoch) in epochs {
            native::set_leader_epoch(&mut list, &partition.0, partition.1, epoch);
        }
        match self.consumer.commit(&list, CommitMode::Async) {
            Ok(()) => Some(self.consumer.context().commits_sent.fetch_add(1, Ordering::SeqCst) + 1),
            Err(error) => {
                tracing::debug!(source = %self.reading.source, error = %error, "offset commit not sent");
                None
            }
        }
    }
}
