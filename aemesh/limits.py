"""Every bound on what a stranger or a peer can make us hold, send or wait.

Each constant says why this number, and what happens when it is reached.  Sizes
are bytes, spans are seconds on trio's clock.
"""

from __future__ import annotations

# --- preamble (before TLS) --------------------------------------------------

# One identity certificate is ~400 bytes, a P-256 chain of four below 4 kB each;
# above: refused before anything further is read.
PREAMBLE_CERTS = 4
PREAMBLE_CERT_BYTES = 4096
PREAMBLE_BYTES = 16384

# A laptop on bad Wi-Fi sends its preamble in one flight: seconds are plenty, and
# a silent stranger holds its slot no longer.
PREAMBLE_AFTER = 3.0
TLS_AFTER = 5.0
HELLO_AFTER = 5.0

# A verdict of a program comes at once; one of a person takes minutes.  While it is
# pending the side that waits says so every PENDING_EVERY; silence is a lost peer.
VERDICT_AFTER = 5.0
PENDING_EVERY = 2.0
PENDING_SILENCE_AFTER = 8.0
PENDING_AFTER = 600.0
# The verdicts of one peer in one handshake: one every PENDING_EVERY until
# PENDING_AFTER is 300; who says more is refused, for each costs us a judgement.
VERDICTS = 1000

# --- proofs (after HELLO, before the verdicts) --------------------------------

# Three messages make a code, two spend a token, Kerberos takes two or three.
PROOFS = 16
# A step with a KDC has GSS_AFTER, on either side; all other proofs are computed.
PROOF_AFTER = 25.0
# Windows' KDCs put groups into tickets, up to 48 000 bytes (MaxTokenSize); in base64
# that still fits a HELLO.  Ours have 700.
GSS_TOKEN_BYTES = 48_000
# Kerberos takes one token each way; the side that spoke first then looks at the answer.
GSS_ROUNDS = 2
# A step takes 2 ms, with a KDC that is down some seconds until the next is asked.
GSS_AFTER = 10.0
# Steps at one time, each in a thread that waits for a KDC until libkrb5 gives up.
# More: they wait, within GSS_AFTER.
GSS_THREADS = 8

# --- messages ---------------------------------------------------------------

# HELLO and VERDICT come from strangers: one page of JSON.
HELLO_BYTES = 64 * 1024
# A session frame carries at most one engine script and certificates, or one
# chunk of output; larger things go by streams of their own.
FRAME_BYTES = 1024 * 1024
# The deepest message of ours nests five levels; 32 leaves room, and refuses the
# 30 kB of "[" that overflow a recursive parser's stack.
JSON_DEPTH = 32
# Integers beyond 64 bits are no number of ours.
JSON_INT_DIGITS = 20
# One read from a stream.
CHUNK_BYTES = 64 * 1024
# Frames of one job before all others have a turn: a read may hold 13 000 of them.
ITEMS_A_TURN = 64
# From the first byte of a frame to its last: for a MiB that is 50 kB/s.  A peer that
# beats but does not read would hold whoever has something to say to it.
FRAME_AFTER = 20.0
# Requests of one peer that wait for an answer of ours; more: answered "busy", and
# nothing further is read until that answer is out.
REQUESTS_IN_FLIGHT = 64
# Beats and "unsupported" that wait for a peer that does not read; more: not said.
UNSENT_BYTES = 64 * 1024
# Events waiting for one slow reader (a client of the control API); more: the
# oldest are dropped and the reader is told how many.
EVENTS_WAITING = 1024

# --- heartbeats -------------------------------------------------------------

# One small frame a second either way: a cut is told in under five seconds, and
# the load is that of an idle ssh connection.
PING_EVERY = 1.0
SUSPECT_AFTER = 2.5
LOST_AFTER = 4.0

# Of two processes of one key both live if the first is heard this much later than the
# second came: a beat, so that what was on its way from a dead one has come.
CLONE_AFTER = 1.0
# Who was announced once more as another process of a linked key is looked after again
# no sooner: each time costs a dial.
CLONE_AGAIN_AFTER = 60.0
# Processes of one key that are kept apart: a worker is started anew a few times a day;
# the one heard of longest ago goes.
LIVES_SEEN = 8

# --- strangers at the listener ----------------------------------------------

# sshd's MaxStartups 10:30:100: from 10 unauthenticated connections on, 30 % of
# the new ones are dropped, rising to all of them at 100.
STRANGERS_START = 10
STRANGERS_RATE = 0.30
STRANGERS_FULL = 100
# One source (IPv4 address or IPv6 /64) cannot fill the room alone.
STRANGERS_PER_SOURCE = 4
# From a source with a trusted link more come at one time, in order: commands that start
# (STARTS_AT_ONCE), ports that are carried (FORWARDS_OPENING), and the link itself anew.
# They take no stranger's place; more: not let in.  Who else is at that address has no
# more than these either, and a penalty leaves one.
LINKED_PER_SOURCE = 40
# Each refusal or broken handshake costs a source this long; the sum is capped,
# and a source that holds a trusted link is never shut out (threat 88).
PENALTY_AFTER = 1.0
PENALTY_CAP_AFTER = 30.0
PENALTY_SOURCES = 1024
# TLS contexts kept, one for each peer that dials us: a worker has a master or two.
# More: the one that was used longest ago goes, and costs 2 ms when it is back.
SERVER_CONTEXTS = 8
# Log lines about strangers: so many a minute, the rest is counted (threat 89).
STRANGER_LOGS_PER_MINUTE = 30
# A request that waits for a person holds no more than this many connections.
PENDING_LINKS = 32
# Requests kept in pending/: the oldest go first.
PENDING_REQUESTS = 128
PENDING_REQUEST_BYTES = 4096
# A trust file of 10 000 peers has 2 MB; what is larger is refused, unread.
TRUST_FILE_BYTES = 8 * 1024 * 1024
# First meetings of one source that nobody confirmed, within this span; after them
# there is none for the next.  Two people who compare words need one meeting, or two if
# one of them looked away.  A man in the middle has one chance in 2**40 at each: at
# three in ten minutes, a million years pass before it is likely to have one.
PAIRINGS = 3
PAIRINGS_WITHIN = 600.0
PAIRINGS_SHUT_AFTER = 600.0
# Sources whose meetings are counted; the one that tried longest ago goes first.  Many
# sources have three tries each anyhow, so pushing one out wins nothing.
PAIRING_SOURCES = 1024
# A file of certificates: a chain, or the few CAs that sign our peers; what is larger
# is refused, unread.
CERTIFICATE_FILE_BYTES = 64 * 1024
AUTHORITIES = 16
# Revocation lists have 30 bytes a certificate: 100 000 of them, and 50 ms of ours for
# each certified peer that is judged.  More is refused, unread.
CRL_FILE_BYTES = 4 * 1024 * 1024
CRLS = 32
# Four lines; what is larger is something else.
SITE_FILE_BYTES = 4096
# What our own CAs have signed: 250 bytes a certificate.
ISSUED_FILE_BYTES = 8 * 1024 * 1024
# audit.log and its one predecessor.
AUDIT_LOG_BYTES = 4 * 1024 * 1024

# --- join tokens ------------------------------------------------------------

# Tokens kept, with those that have ended; when they are so many, the one that ended
# longest ago goes, and if none has ended, no new one is given out.
TOKENS = 256
# Keys that one token introduces: a cluster's nodes; each costs 170 bytes of its file.
TOKEN_COUNT = 1000
# The longest that a token holds.  It is a secret that lies about in files and scripts;
# who needs one for longer wants certificates.
TOKEN_CAP_AFTER = 30 * 24 * 3600.0
# An ended token is kept so long, so that a late holder hears why it is refused.
TOKEN_KEPT_AFTER = 7 * 24 * 3600.0
# Patterns of groups, or of names, in one token.
TOKEN_PATTERNS = 64
# A record with TOKEN_COUNT uses has 190 kB; what is larger is passed over, unread.
TOKEN_FILE_BYTES = 512 * 1024
# A line of --join @FILE or --join -: a token has 73 characters.
JOIN_LINE_BYTES = 4096

# --- discovery --------------------------------------------------------------

# Names seen on the network: an office has tens, a floor hundreds.  Beyond: the
# unknown one that was heard longest ago goes; known ones never.
NAMES_SEEN = 1024
# Announced TXT data; DESIGN.md section 5 asks for less than 400, others' are
# refused at three times that.
TXT_BYTES = 400
TXT_BYTES_UNTRUSTED = 1300
ANNOUNCED_ADDRESSES = 8
# What is left of TXT_BYTES for addresses when every other field has its longest
# value: seven of IPv4, or two of IPv6; the ones that fit least are left out.
ANNOUNCED_ADDRESSES_BYTES = 112
# Signed announcements say until when they hold; renewed at half of it.
ANNOUNCEMENT_AFTER = 24 * 3600.0
# An announcement that claims to hold for longer is refused: one could be replayed
# for ever.  Longer than our own, so that a later aemesh may announce for a week.
ANNOUNCEMENT_CAP_AFTER = 7 * 24 * 3600.0
# Clocks of office machines differ; more than this is told (leap) or refused (X.509).
CLOCK_SKEW_AFTER = 300.0
# Ports below are not ours to dial: an announcement must not make us knock at a
# printer's or a mail server's door (threat 62).
LOWEST_PORT = 1024
# mDNS events waiting for trio; more: dropped, the next query brings them again.
MDNS_EVENTS_WAITING = 256
# Names heard of without their TXT that are asked for at one time, and how long;
# more: dropped.  Honest responders send all in one packet.
MDNS_ASKS_AT_ONCE = 16
MDNS_ASK_AFTER = 3.0
# Announcements of strangers that are looked at in a second: each costs 0.15 ms, most
# for its signature.  An office that starts at once has hundreds; beyond: they wait,
# and then are dropped.
SIGHTINGS_PER_SECOND = 1000
# Names whose announcements were wrong, kept to tell each once; the oldest go first.
IMPOSTERS_SEEN = 128
# Addresses remembered of one known key: an office machine has had one or two.
ADDRESSES_REMEMBERED = 8
# Scopes that one link-local address is tried on when mDNS did not tell which: a
# laptop has a cable, a radio and perhaps a dock.
LINK_LOCAL_SCOPES = 4
# Network interfaces are looked at this often (0.3 ms a time): a laptop that comes
# back to its network is found again before its user wonders.
INTERFACES_EVERY = 2.0
# A look that comes this much too late: the machine slept, or we were stopped.  Peers
# may have given us up by then (LOST_AFTER); one look too many costs a packet or two.
ASLEEP_AFTER = 2.0
# The goodbye at the end is sent three times in 0.25 s; no exit waits longer.
GOODBYE_AFTER = 1.0

# --- dialling ---------------------------------------------------------------

DIAL_AFTER = 3.0
# A connection on which nothing is said is looked after by the kernel: from when on, how
# often, and how often in vain (tcp(7)).  Whoever is switched off closes nothing, and
# what is carried for an engine has no beat of ours; so it is given up in a minute.
KEEPALIVE_AFTER = 30
KEEPALIVE_EVERY = 10
KEEPALIVE_TRIES = 3
REDIAL_AFTER = 0.25
REDIAL_CAP_AFTER = 5.0
# After so many failures in a row (two minutes) a machine is off, or another by now;
# it is tried this seldom until it is announced again.
REDIALS = 28
REDIAL_SELDOM_AFTER = 60.0
# A worker that hears of a master lets it dial first: a master that can does so within
# a tenth of a second of the worker's own announcement.
HEAD_START_AFTER = 1.5
# Masters that a worker dials without knowing them, where it may (first use, open,
# certificates): an office has a handful.  More: the one heard of longest ago goes.
MASTERS_SOUGHT = 64
# A name that the user typed: the system's resolver asks two or three servers.
RESOLVE_AFTER = 15.0
# Peers dialled at one time.
DIALS_AT_ONCE = 16
# Handshakes with workers that nobody trusts yet, each a connection that may wait
# minutes for a person: far below the 1024 open files of a process.  More: the one that
# has waited longest is hung up on; its request stays, and an accept dials it again.
UNTRUSTED_SHAKES = 128

# --- jobs -------------------------------------------------------------------

# From the polite signal to the certain one, when a job is released.
TERM_AFTER = 2.0
# The longest span from the one to the other that a master may ask for.  A job that is
# let go with a year to end would outlive its lease, its link and the trust in who
# started it; the longest retirement is the longest anybody waits for one.
TERM_CAP_AFTER = 30.0
# A worker whose master is lost keeps its jobs so long, in case only the line is.
ORPHANED_JOB_AFTER = 3.0
JOBS_PER_WORKER = 256
# Commands that a client of the master's begins on one member at one time: each has a
# handshake of its own, so more are no faster, and two clients are within what a worker
# lets in and answers (LINKED_PER_SOURCE, REQUESTS_IN_FLIGHT).
STARTS_AT_ONCE = 16
# A worker that another master wants is given back when it was idle for so long: the
# pauses of somebody who works with it interactively are shorter, or he is at lunch.
IDLE_GIVEN_AFTER = 5.0
# A worker that was given back is for others so long; after it nobody wanted it enough.
TURN_AFTER = 10.0
# A lease that is over, by the owner's span: its holder has this long to retire the
# worker (RETIRE_AFTER), and to notice that it is to.
LEASE_OVER_AFTER = 40.0
# Masters whose wishes a worker passes on; an office has a few.
WISHES = 16
# Groups that a worker's owner names on one command line.
GROUPS_ALLOWED = 64
# A worker whose master is out of sight keeps its lease and its lasting jobs as long as
# the master said, for one that crashed may come back; nobody else may use it so long.
LEASE_KEPT_CAP_AFTER = 24 * 3600.0
# What a master says if its user does not: time to see it, and to start it again.
LEASE_KEPT_AFTER = 300.0
# Masters that may take over from another one.
HEIRS = 8
# The last words of a lasting job while nobody listens to it; the oldest go first.
DETACHED_OUTPUT_BYTES = 256 * 1024
# What a master keeps beside itself for its successor: a group takes 2 kB, a member 300
# bytes.  More: refused, and the successor begins that group anew.
KEPT_ENTRIES = 8192
KEPT_KEY_LENGTH = 128
KEPT_BYTES = 16 * 1024
KEPT_PAGE = 16
# A member that an adopted group waits for: its worker is dialled, at the latest, every
# REDIAL_CAP_AFTER.
ADOPT_AFTER = 15.0
# An heir that could not take over tries again: its forerunner may be there still.
TAKEOVER_AGAIN_AFTER = 5.0
# The keeper beside a new master: it starts in a third of a second.
KEEPER_UP_AFTER = 10.0
# A keeper that no master holds has no use.
KEEPER_IDLE_AFTER = 30.0
# A job whose stream does not come is nobody's.
ATTACH_AFTER = 10.0
JOB_FILES = 32
JOB_FILE_BYTES = 512 * 1024
JOB_ARGS = 1024
# The kernel's 128 KiB with the NUL behind; a variable is one string with its name.
JOB_ARG_BYTES = 128 * 1024 - 1
JOB_ENV = 256
# A killed process is gone in milliseconds, unless it hangs in the kernel on a file
# server that is away: then it is told, and left.
GONE_AFTER = 5.0
# The random marker of an agent's jobs, in hex digits: none is met by chance.
MARKER_LENGTH = 32
# Jobs started before they are asked for; each costs an interpreter's memory.  Who
# lends a machine says how many (`--spares`); beyond this he meant something else.
SPARES = 16
# A spare that died without being asked for anything would die again at once.
SPARE_DIED_AGAIN_AFTER = 60.0
# Modules that a group's nodes import beforehand: an analysis names two or three.
PRELOADS = 16
MODULE_LENGTH = 100
# Kinds of spares that one master names: its groups, of which most want the same.
WARM_KINDS = 16
# An engine's settings of one group, and the length of each value.
ENGINE_SETTINGS = 64
ENGINE_SETTING_LENGTH = 1000
# After a spare was taken, the next waits until the join that took it has passed.
SPARE_AGAIN_AFTER = 1.0
ENGINE_OPEN_AFTER = 60.0
MEMBER_ADD_AFTER = 60.0
# A worker's answer to an order: it ends jobs first, by TERM_AFTER and GONE_AFTER.  One
# that only beats, and never answers, would hold its place in a group for ever.
ANSWER_AFTER = 20.0
# How far one assignment may raise a worker's generation, which is written down and
# never falls.  A master counts on by one; a worker that lost its state is some
# thousands behind.  Without it, one assignment of the highest number that fits makes
# the worker useless for everybody, for good; with it that takes 2**33 of them.
GENERATION_LEAP = 2**20
# Retiring moves data; a graceful leave waits no longer than this unless told.
RETIRE_AFTER = 30.0
# A worker that was taken out of one group for another of the same master is kept so
# long for it, if others want it: until who makes room there is gone (RETIRE_AFTER).
VACANT_AFTER = 35.0
# And so long while no group is to have it: the plan is made anew at once.
UNPLACED_AFTER = 1.0

# --- sharing ----------------------------------------------------------------

# Workers that serve are moved to others' good when nothing has changed for so long: an
# office that starts at once is there by then.  Each time soon after another it is twice
# as long, up to the cap; and a link that never rests puts it off no longer than that.
SETTLE_AFTER = 2.0
SETTLE_CAP_AFTER = 60.0
# Failures in a row until a worker is set aside: one is bad luck, two are a coincidence.
FAILURES_ENOUGH = 3
# A failure later than this is not that of a black hole: work takes longer to fail.
FAILS_QUICKLY_AFTER = 10.0
# Losses of one worker's link until it is set aside: a cable that is plugged in anew, or
# a bad radio, breaks twice; what breaks four times in two minutes goes on doing so.
LOSSES_ENOUGH = 4
LOSSES_WITHIN = 120.0
# How long a worker is set aside the first time; each time doubles it, until nothing
# was wrong for a while.
ASIDE_AFTER = 60.0
ASIDE_CAP_AFTER = 3600.0
ASIDE_FORGOTTEN_AFTER = 3600.0
# What a group's workers must have, as a person types it: a line or two.  It is kept
# with the group, and evaluated for each worker.
REQUIRE_LENGTH = 1000
# Brackets and `not` in one another: nobody reads ten.  Deeper: refused, before the
# reader's own stack is in danger.
REQUIRE_DEPTH = 32
# Workers of one group, and the weight of one: beyond what an office has by far, and
# small enough that shares are computed in whole numbers.
GROUP_WORKERS = 100_000
GROUP_WEIGHT = 1000
# The longest that a client waits for a group to fill: it holds a connection meanwhile.
GROUP_WAIT_CAP_AFTER = 30 * 24 * 3600.0
# Lines of its history that are shown with a group.
GROUP_EVENTS_SHOWN = 20
# Labels of one worker: a handful of words that its owner gave it.
LABELS = 32
LABEL_LENGTH = 64

# A departure with more notice is proposed this long ahead; before that the engine only
# knows of it.  Ten minutes move some 60 GB over an office's wire.
DEPARTURE_LEAD_AFTER = 600.0
# What the end of a departure takes, before the moment at which all of it is gone: the
# engine's end in order has two seconds behind its last byte, then SIGTERM has two, and
# the agent itself half of one.  With less notice than NOTICE all of it shrinks alike.
DEPARTURE_MOVED_BEFORE = 4.5
DEPARTURE_TERM_BEFORE = 2.5
DEPARTURE_KILL_BEFORE = 0.5
DEPARTURE_NOTICE_AFTER = 5.0
# A departure that moves nothing.
DEPARTURE_QUICK_AFTER = 2.0
# How often a worker that leaves hears how far it is.
DEPARTURE_TOLD_EVERY = 1.0

# --- asking a master from another machine ------------------------------------

# One question and its answer, also for who reads slowly.
ASK_AFTER = 15.0
# Who asks often asks again; a page on a screen is drawn from a few answers.
ASKS_AT_ONCE = 8
ASK_EVERY = 2.0  # by who follows
ASKS_OF_ONE = 2
# All workers of a large site take half a kilobyte each; a page is a frame of these.
ANSWER_CHARS = 8 * 1024 * 1024
ANSWER_PAGE_CHARS = 32 * 1024
EVENTS_ANSWERED = 500

# --- the control API --------------------------------------------------------

CONTROL_BODY_BYTES = 1024 * 1024
EVENTS_KEPT = 10_000
# Events a minute about workers that nobody trusts yet: names and reasons are of their
# own choice, new ones each time, and each is a write to the disk.  More than an office
# that starts at once; what was kept before is then pushed out in 40 minutes at the
# earliest, not in ten seconds (threat 89).
STRANGER_EVENTS_PER_MINUTE = 240

# --- durable runs -----------------------------------------------------------

# A value, or a state at a checkpoint: a histogram has kilobytes, a table of an
# analysis some megabytes; what is larger belongs into a file, and its name here.  It is
# in the master's memory whole while it is written.  More: refused, the item fails.
RUN_VALUE_BYTES = 64 * 1024 * 1024
# Values up to here stand in SQLite's own file: written one at a time that costs half of
# a file each (172 and 392 us for 1 kB), and in batches the two meet at a megabyte.
RUN_ROW_BYTES = 64 * 1024
# Values that are read in one go: some milliseconds, which others wait.
RUN_PAGE_BYTES = 1024 * 1024
# Items of one run, 300 bytes each beside their values; more: refused.
RUN_ITEMS = 1_000_000
# All values of one run, with the states of what is in the middle: what a laptop's disk
# can spare; more: refused.
RUN_BYTES = 64 * 1024 * 1024 * 1024
# Items of one run that are in the middle at one time: one for each core of a group.
RUN_CHECKPOINTS = 16_384
# Runs kept; a person removes old ones.  More: refused.
RUNS = 4096
# Text for people: what is computed, and what an item is called.
RUN_TITLE_LENGTH = 200
# Items named in one message, and the JSON that names them: an id and a title have up to
# 500 bytes together.
RUN_BATCH_ITEMS = 1000
RUN_HEAD_BYTES = 512 * 1024
# A message: what it says, and the values that it brings.
RUN_MESSAGE_BYTES = 4 + RUN_HEAD_BYTES + RUN_VALUE_BYTES

# Files of one checkpoint of a command, and their bytes when they are unpacked: what is
# kept may be a sixteenth of it.  More: refused, before anything is written.
CHECKPOINT_FILES = 10_000
CHECKPOINT_BYTES = 1024 * 1024 * 1024
# Connections of one job to its agent: its processes have one each, and a machine has
# some hundred cores.  More: they wait to be accepted.
JOB_CALLERS = 512
# Those of all jobs of an agent: each is an open file, of which some systems grant 4096.
# These few each job has, whatever others hold.
AGENT_CALLERS = 1024
JOB_OWN_CALLERS = 4
# Questions of one job that its master has not answered: those of all its callers.  A
# worker that sends more is cut off.
JOB_QUESTIONS = JOB_CALLERS
# A question up to here is small: all callers of a job may have 32 MiB of them in our
# memory.  Larger ones of all jobs of an agent, and those for a state, take turns, so
# many at one time; and that is what a master may be asked to hold of one job.
JOB_SMALL_BYTES = 64 * 1024
JOB_LARGE_AT_ONCE = 4
JOB_HELD_BYTES = JOB_LARGE_AT_ONCE * RUN_MESSAGE_BYTES + JOB_CALLERS * JOB_SMALL_BYTES
# States in a master's memory at one time, on their way to jobs that go on from them:
# one of each member, so that none has all of the room.  More: they wait.  Who does not
# take a MiB of an answer in FRAME_AFTER loses its stream, and with it the place.
STATES_AT_ONCE = 8
# A job that begins a large question ends it within this time, or gives its turn up.
JOB_SAYS_AFTER = 30.0

# --- the user's own files ---------------------------------------------------

# All settings of all commands with a line of comment each are a tenth of this.
SETTINGS_FILE_BYTES = 64 * 1024
# What a detached script printed: its last 16 MiB, a day of a line each 0.4 s.  The
# oldest piece goes when a fifth would begin.
JOB_OUTPUT_PIECE_BYTES = 4 * 1024 * 1024
JOB_OUTPUT_PIECES = 4
# Detached scripts that have ended and are still told of; older ones are removed when
# the next one starts.  With all they printed: 800 MiB at the very most.
JOBS_KEPT = 50

# --- delegation -------------------------------------------------------------

# The longest life of a proxy certificate: what grid tools make if nobody says how
# long.  More is refused where it is asked for, and by the worker.
DELEGATION_CAP_AFTER = 12 * 3600.0
# A proxy, the user's certificate or proxies, and intermediates; a proxy of a virtual
# organisation has some 8 kB of attributes in it.
PROXY_CERTS = 8
PROXY_BYTES = 64 * 1024
# Keys made for jobs that have not come yet; more: refused.
DELEGATIONS_WAITING = 64

# --- reaching a member's ports ------------------------------------------------

# A worker listens this long for the one connection that shows whether it lets any in;
# on a local network that takes a millisecond.  Then it counts as out of reach.
PROBE_AFTER = 2.0
# Probes that one worker answers at one time: a master or two ask, once for each link.
PROBES_AT_ONCE = 4
# Ports of one member that are forwarded: one for each process of its engine, and a new
# one for each that was started again.  More: the oldest is given up.
FORWARDED_PORTS = 256
# Connections that are carried at one time, for all members of a master, and by one
# worker: two open files each, of the 1024 that a process has.  More: they wait.
FORWARDED_CONNECTIONS = 320
# Connections that wait for their turn at one port; more: closed.
FORWARDS_WAITING = 64
# Connections that are carried for sources that are no member's address, as far as we
# know; of one source STRANGERS_PER_SOURCE.  They are made one after another.
FORWARDED_STRANGERS = 16
# Connections to one member that are being made at one time: each costs a handshake.
FORWARDS_OPENING = 16
# From a connection that came in to one that is carried.
FORWARD_OPEN_AFTER = 15.0
# One read of what is carried.  Beyond this it is no faster, see docs/benchmarks.md.
FORWARD_CHUNK_BYTES = 256 * 1024
