-- The keys of one queue in a cluster. They are all in one slot, and a call names every one of them, used or
-- not: so a node that is just giving the slot away, or getting it, answers that the call has to be sent
-- elsewhere or again, rather than find keys empty that are not there.
--
-- In the order in which they are named: the hashes of tasks and of results; ids by when their retention
-- ends; the ten lists of claimable ids, by priority; the set of leased ids, the sorted set of delayed ones,
-- the set of dead letters; ids by when their lease ends; what cannot be read; and the attempts to enqueue
-- that were forbidden, by when that may be forgotten.
--
-- codeQ's own servers never see these keys. So there are no leases but the deadlines, and nothing has to be
-- looked for. Which queues there are, which have tasks, and when something comes due in one, the hosts know.

local TASKS, RESULTS, RETENTION = KEYS[1], KEYS[2], KEYS[3]
local PENDING, CORRUPT, FORBIDDEN = sub(KEYS[4], 1, -2), KEYS[18], KEYS[19]
local EVENTS = 'codeq:x:events'

-- Whose queue it is comes before what the operation is about.
local COMMAND, TENANT = ARGV[FIRST], ARGV[FIRST + 1]
FIRST = FIRST + 2

local QUEUE = {
  base = TASKS:match('{(.*)}'), command = COMMAND, tenant = TENANT, pending = PENDING,
  inprog = KEYS[14], delayed = KEYS[15], dlq = KEYS[16], deadlines = KEYS[17],
}

-- Whatever a record says, a script works on no other queue than the one it was called for.
local function queue_of() return QUEUE end
local function queue_at() return QUEUE end
local function lower() return COMMAND end
local function lower_of() return COMMAND end
local function teach() end
local function register() end
local function mark_ready() end
local function mark_drained(queue) queue.drained = true end
local function remove_elsewhere() end
local function delayed_elsewhere() end
local function set_lease() end
local function lease_holder() end
local function lease_left() return 0 end
local function drop_leases() end
local function alarm() end

-- Whether somebody made sure that an attempt to enqueue comes to nothing.
local function is_forbidden(attempt) return call('ZSCORE', FORBIDDEN, attempt) end
