//! Counters of the protocol: plain numbers, read by value.

/// Declares a struct of counters with a visitor over (name, value).
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct $name { $($(#[$fdoc])* pub $field: u64),* }
        impl $name {
            /// Calls `f` with the name and value of each counter.
            pub fn each(&self, mut f: impl FnMut(&'static str, u64)) { $(f(stringify!($field), self.$field);)* }
        }
    };
}

counters! {
    /// Plain datagrams and frames, before sealing, and what was dropped.
    Traffic {
        /// Datagrams handed to the host.
        datagrams_sent,
        /// Their bytes, sealing included, IP and UDP headers not.
        bytes_sent,
        /// Datagrams that decoded whole.
        datagrams_received,
        /// Their bytes, sealing included.
        bytes_received,
        /// Frames handed to the host.
        frames_sent,
        /// Their bytes.
        frame_bytes_sent,
        /// Frames that decoded whole.
        frames_received,
        /// Their bytes.
        frame_bytes_received,
        /// Dropped: not of this protocol.
        dropped_malformed,
        /// Dropped: another cluster's label.
        dropped_label,
        /// Dropped: unknown wire version.
        dropped_version,
        /// Dropped: sender unknown; answered by CHALLENGE where allowed.
        dropped_unknown_sender,
        /// Dropped: sender's id was retired.
        dropped_stale_generation,
        /// Dropped: my own id.
        dropped_own,
        /// Dropped: over a limit of rate or size.
        dropped_overload,
        /// Refused records: limits, clocks, incarnations.
        records_refused,
    }
}

counters! {
    /// Failure detector.
    DetectorMetrics {
        /// Probes started.
        probes,
        /// Probes that ended in an accusation by me.
        accusations,
        /// Suspicions that began in my view.
        suspicions,
        /// Suspicions that ended by refutation.
        refutations,
        /// Deaths declared by me.
        deaths_declared,
        /// Deaths in my view.
        deaths,
        /// Members revived with the same generation: false deaths or healed partitions.
        revived,
        /// Times I refuted a claim about me.
        refuted_self,
        /// Probes repeated because I was isolated.
        isolated,
        /// Contacts sent.
        contacts,
    }
}

counters! {
    /// Rumors.
    RumorMetrics {
        /// Payload records sent.
        records_sent,
        /// Ids sent.
        ids_sent,
        /// Ids asked for.
        wants_sent,
        /// Records that were news.
        records_new,
        /// Records that were already known.
        records_known,
        /// Hot records dropped because the hot list was full.
        hot_dropped,
        /// Own writes that never were rumors because too many were waiting.
        unflushed_dropped,
        /// WANTs given up.
        wants_given_up,
        /// WANTs not answered for lack of budget.
        wants_unanswered,
    }
}

counters! {
    /// Anti-entropy.
    SyncMetrics {
        /// Sessions started as requester.
        sessions,
        /// Sessions that moved nothing.
        sessions_useless,
        /// Sessions given up.
        sessions_failed,
        /// Records received by sessions.
        records_received,
        /// Records sent to sessions.
        records_sent,
        /// Bytes of messages sent for anti-entropy, records included.
        bytes_sent,
        /// Bytes of messages received for anti-entropy, records included.
        bytes_received,
        /// Requests dropped for lack of budget or rate.
        requests_dropped,
        /// Needs dropped because the queue was full.
        needs_dropped,
    }
}

counters! {
    /// Broadcasts, queries, mail, and confirmations.
    TalkMetrics {
        /// Own broadcasts.
        broadcasts_sent,
        /// Broadcasts delivered, own ones included.
        broadcasts_delivered,
        /// Numbers of other senders' broadcasts that were skipped.
        broadcasts_skipped,
        /// Times others were asked for missing numbers.
        gaps_asked,
        /// Own queries.
        queries_sent,
        /// Queries whose filter matched me, own ones included.
        queries_received,
        /// Queries or answers not taken for lack of room.
        queries_refused,
        /// ANSWERs sent, repetitions included.
        answers_sent,
        /// Answers to own queries.
        answers_received,
        /// MAILs sent, repetitions included.
        mail_sent,
        /// MAILs taken.
        mail_received,
        /// MAILs that came again.
        mail_known,
        /// MAILs not taken for lack of room.
        mail_refused,
        /// Own MAILs that were not acknowledged in time.
        mail_failed,
        /// Reserved entries that say nothing.
        malformed,
        /// POLLs sent.
        polls_sent,
        /// SEENs that counted.
        seen_received,
    }
}

/// Values, not counters: what is there now.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Gauges {
    /// Members by liveness, self included.
    pub members_alive: u64,
    /// Suspect members.
    pub members_suspect: u64,
    /// Dead members remembered.
    pub members_dead: u64,
    /// Left members remembered.
    pub members_left: u64,
    /// Hot rumors.
    pub rumors_hot: u64,
    /// Age of the oldest unflushed own entry in ms.
    pub backlog_age_ms: u64,
    /// Keys of users in the store, tombstones not counted.
    pub store_keys: u64,
    /// Bytes of keys and values in the store.
    pub store_bytes: u64,
    /// Tombstones in the store.
    pub store_tombstones: u64,
    /// 1 while a limit of the store is reached, or something was refused for it: entries are not compared then (`S7`).
    pub store_full: u64,
    /// Own wall clock minus the median of the partners', ms.
    pub clock_off_ms: i64,
}

/// A snapshot of everything counted.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Metrics {
    /// Datagrams and frames.
    pub traffic: Traffic,
    /// Failure detector.
    pub detector: DetectorMetrics,
    /// Rumors.
    pub rumors: RumorMetrics,
    /// Anti-entropy.
    pub sync: SyncMetrics,
    /// Broadcasts, queries, mail.
    pub talk: TalkMetrics,
    /// Present values.
    pub gauges: Gauges,
}
