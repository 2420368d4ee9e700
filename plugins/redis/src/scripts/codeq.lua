-- The keys of codeQ's own servers.
--
-- codeQ's keys say where a task is. Beside them this plugin keeps, under `codeq:x:`, what codeQ
-- leaves to chance; all of it can be rebuilt from codeQ's keys, and follows them where they differ:
--
--   codeq:x:queues             queue key -> length of command ':' command tenant
--   codeq:x:lower              command -> the same in lower case, for those that are not ASCII
--   codeq:x:deadlines:<queue>  id by the millisecond in which its lease ends
--   codeq:x:due                tenant by when to look for delayed tasks; due:<tenant>: queue by that
--   codeq:x:expiring           the same for leases
--   codeq:x:ready:<tenant>     queue with claimable tasks by when it was last served
--   codeq:x:adopting           queue -> how far its in-progress set was searched, and when
--   codeq:x:corrupt            id of a record that cannot be read -> its hash, queue it was found in
--   codeq:x:shards             owner of a queue -> its key, if codeQ keeps it in a shard
--   codeq:x:idempo             whether any `codeq:x:idempo:` key may be there

local TASKS, RETENTION, RESULTS = 'codeq:tasks', 'codeq:tasks:ttl', 'codeq:results'
local CORRUPT, QUEUES, LOWER = 'codeq:x:corrupt', 'codeq:x:queues', 'codeq:x:lower'
local SHARDS = 'codeq:x:shards'
local EVENTS = 'codeq:x:events'

local by_owner, by_base = {}, {}

-- Redis's Lua knows the case of ASCII only. Hosts teach it the others, command by command.
local function lower(command)
  if not find(command, '[\128-\255]') then return string.lower(command) end
  return call('HGET', LOWER, command) or string.lower(command)
end

local function teach(command, lowered)
  if find(command, '[\128-\255]') then call('HSET', LOWER, command, lowered) end
end

-- A task's command in lower case. Where the task was found tells how to spell it, if codeQ wrote the task
-- and nobody taught the server yet.
local function lower_of(command, tenant, found_in)
  local lowered = lower(command)
  if found_in and lowered ~= found_in.command and tenant == found_in.tenant
    and find(command, '[\128-\255]') and call('HEXISTS', LOWER, command) == 0 then
    lowered = found_in.command
    teach(command, lowered)
  end
  return lowered
end

local function base_of(command, tenant)
  return 'codeq:q:' .. command .. (tenant == '' and '' or ':' .. tenant)
end

local function known(base, command, tenant, registered)
  local owner, queue = #command .. ':' .. command .. tenant, by_base[base]
  if queue and queue.owner == owner then return queue end
  queue = {
    base = base, command = command, tenant = tenant, owner = owner, registered = registered,
    pending = base .. ':pending:', inprog = base .. ':inprog',
    delayed = base .. ':delayed', dlq = base .. ':dlq',
    deadlines = 'codeq:x:deadlines:' .. base, ready = 'codeq:x:ready:' .. tenant,
  }
  by_base[base] = queue
  return queue
end

-- The queue of a command, in lower case, and a tenant. codeQ's key of command `a`, tenant `b` is also
-- that of command `a:b` without a tenant; whoever used it first has it, the other gets its own. If
-- codeQ keeps the queue in a shard, its key is that of the shard; then it is also `unsharded`, for what
-- may be where it would be without shards.
local function queue_of(command, tenant)
  local owner = #command .. ':' .. command .. tenant
  local queue = by_owner[owner]
  if queue then return queue end
  local base = base_of(command, tenant)
  local shard = call('HGET', SHARDS, owner)
  if shard then
    queue = known(shard, command, tenant, true)
    local holder = call('HGET', QUEUES, base)
    if not holder or holder == owner then
      queue.unsharded = known(base, command, tenant, holder == owner)
    end
    by_owner[owner] = queue
    return queue
  end
  local holder = call('HGET', QUEUES, base)
  if holder and holder ~= owner then
    base = 'codeq:x:q:' .. owner
    holder = call('HGET', QUEUES, base)
  end
  queue = known(base, command, tenant, holder and true or false)
  by_owner[owner] = queue
  return queue
end

-- The queue of a key; nothing if nobody registered it.
local function queue_at(base)
  local queue = by_base[base]
  if queue then return queue end
  local owner = call('HGET', QUEUES, base)
  if not owner then return nil end
  local length, rest = owner:match('^(%d+):(.*)$')
  return known(base, sub(rest, 1, length), sub(rest, length + 1), true)
end

local function register(queue)
  if queue.registered then return end
  call('HSET', QUEUES, queue.base, queue.owner)
  queue.registered = true
end

-- Has claims of any command look at a queue, or no longer.
local function mark_ready(queue) call('ZADD', queue.ready, 'NX', 0, queue.base) end
local function mark_drained(queue) call('ZREM', queue.ready, queue.base) end

-- Some codeQ versions name a tenant's in-progress task in the set without the tenant.
local function remove_elsewhere(queue, ids)
  if queue.tenant ~= '' then bulk(try, 'SREM', base_of(queue.command, '') .. ':inprog', ids) end
end

-- When a task is visible that codeQ delayed in the queue without a tenant, in its score.
local function delayed_elsewhere(queue, id)
  return call('ZSCORE', base_of(queue.command, '') .. ':delayed', id)
end

-- A key and its task are made in one step here, so no attempt to do it has to be forbidden.
local function is_forbidden() return false end

-- Leases: codeQ's servers know them by a key that ends with the lease.
local function set_lease(id, worker, millis) call('SET', 'codeq:lease:' .. id, worker, 'PX', millis) end

-- Whom a lease key names; nothing if there is none.
local function lease_holder(id) return call('GET', 'codeq:lease:' .. id) end

-- How long a lease has to go by its key; not above 0 if there is none.
local function lease_left(id) return call('PTTL', 'codeq:lease:' .. id) end

local function drop_leases(ids)
  local keys = {}
  for n, id in ipairs(ids) do keys[n] = 'codeq:lease:' .. id end
  for from = 1, #keys, AT_ONCE do
    call('DEL', unpack(keys, from, min(from + AT_ONCE - 1, #keys)))
  end
end

-- Makes sure that `kind` of thing is looked for in a queue at `at`. An alarm is set earlier, never
-- later, so the usual life of a lease, which ends long before its deadline, costs one look-up.
local function alarm(kind, queue, at)
  local known_at = queue[kind]
  if known_at and known_at <= at then return end
  local mine = 'codeq:x:' .. kind .. ':' .. queue.tenant
  local before = tonumber(call('ZSCORE', mine, queue.base) or nil)
  queue[kind] = before and min(before, at) or at
  if before and before <= at then return end
  register(queue)
  call('ZADD', mine, whole(at), queue.base)
  before = call('ZSCORE', 'codeq:x:' .. kind, queue.tenant)
  if not before or tonumber(before) > at then
    call('ZADD', 'codeq:x:' .. kind, whole(at), queue.tenant)
  end
end

-- Sets an alarm to `at`, earlier or later; without a time it is taken away.
local function reset(key, member, at)
  if at then call('ZADD', key, whole(at), member) else call('ZREM', key, member) end
end

-- Makes a shard of codeQ's the place of a queue. codeQ has each queue in one; what is in another one,
-- because it was moved, is brought here.
local function adopt_shard(base, command, tenant)
  local queue = known(base, command, tenant, false)
  call('HSETNX', SHARDS, queue.owner, base)
  register(queue)
  return queue
end
