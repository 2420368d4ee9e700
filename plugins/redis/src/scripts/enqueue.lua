-- Groups of items of one queue: `=`, the command as spelled and in lower case, the tenant, and those
-- members of the record, but for the times, that come behind the state. Then the items: the priority, the
-- id, and what comes before the state; before an item may stand `@` and when it is visible, or `!` and its
-- idempotency key, or `?` and the name of the attempt, where somebody may have forbidden that.

-- Where a key may be remembered, and where by whom. codeQ's key of tenant `a`, key `b:c` is also that of
-- tenant `a:b`, key `c`: the second to come remembers its own in a key that only it can have. codeQ itself
-- leaves the tenant out, so its keys are read as well, but never written for a tenant: codeQ would answer
-- another tenant with them.
local function names_of(tenant, key)
  local shared = 'codeq:idempo:' .. (tenant == '' and '' or tenant .. ':') .. key
  return shared, tenant ~= '' and 'codeq:idempo:' .. key or shared
end

local function own_name(tenant, key) return 'codeq:x:idempo:' .. #tenant .. ':' .. tenant .. key end

local OWN_NAMES = 'codeq:x:idempo'
local may_have_own

local remembered_by = {}

-- What a name is about: a task, or nothing and whether its record cannot be read.
local function about(name)
  local id = remembered_by[name]
  if id == nil then
    id = call('GET', name)
    remembered_by[name] = id
  end
  if id then return load(id) end
end

-- The task that was enqueued with a key already; else nothing and where to remember the key.
local function remembered(tenant, key)
  local shared, without_tenant = names_of(tenant, key)
  local task, unreadable = about(shared)
  if unreadable then return nil, nil, remembered_by[shared] end
  if task and task.state.tenant == tenant then return task end
  local place = task and own_name(tenant, key) or shared
  if may_have_own == nil then may_have_own = call('EXISTS', OWN_NAMES) == 1 end
  if may_have_own then
    local own = own_name(tenant, key)
    task, unreadable = about(own)
    if unreadable then return nil, nil, remembered_by[own] end
    if task and task.state.tenant == tenant then return task end
  end
  -- A key without a tenant may be about another tenant's task.
  task = about(without_tenant)
  if task and task.state.tenant == tenant then return task end
  return nil, place
end

local function remember(place, id)
  if REMEMBERED_FOR <= 0 then return end
  remembered_by[place] = id
  call('SET', place, id, 'PX', whole(REMEMBERED_FOR))
  if find(place, OWN_NAMES, 1, true) == 1 then
    call('SET', OWN_NAMES, '1', 'PX', whole(REMEMBERED_FOR))
    may_have_own = true
  end
end

-- What is asked for, read in one go: which ids there are already, and which keys are remembered.
local ids, keys = {}, {}
do
  local n, tenant = FIRST, nil
  while n <= #ARGV do
    local mark = ARGV[n]
    if mark == '=' then
      tenant, n = ARGV[n + 3], n + 5
    elseif mark == '@' or mark == '?' then
      n = n + 2
    elseif mark == '!' then
      local count = #keys
      keys[count + 1], keys[count + 2] = names_of(tenant, ARGV[n + 1])
      n = n + 2
    else
      ids[#ids + 1] = ARGV[n + 1]
      n = n + 3
    end
  end
end
fetch(ids)
for from = 1, #keys, AT_ONCE do
  local to = min(from + AT_ONCE - 1, #keys)
  local found = call('MGET', unpack(keys, from, to))
  for n = from, to do remembered_by[keys[n]] = found[n - from + 1] end
end
if keys[1] then
  local earlier = {}
  for _, id in pairs(remembered_by) do
    if id and texts[id] == nil then earlier[#earlier + 1] = id end
  end
  fetch(earlier)
end

local body, say = answers(1)
local n, queue, tenant, ready_text, fixed = FIRST, nil, nil, nil, nil
local visible_at, key, attempt = 0, nil, nil

local function text_behind(location)
  return MARK .. 'PENDING","lastKnownLocation":"' .. location .. '"' .. fixed .. ',"createdAt":'
    .. NOW_TEXT .. ',"updatedAt":' .. NOW_TEXT .. '}'
end

local function create(id, priority, head, place)
  local awoke, text = false, nil
  if visible_at > now then
    add('ZADD', queue.delayed, seconds(visible_at), id)
    register(queue)
    alarm('due', queue, visible_at)
    text = head .. text_behind('DELAYED_ZSET')
  else
    awoke = arrive(queue, id, priority)
    text = head .. ready_text
  end
  -- The record comes last: a place without a record is harmless.
  local count = #records
  records[count + 1], records[count + 2] = id, text
  retain(id, visible_at)
  texts[id] = text
  if place then remember(place, id) end
  say('created', awoke and '1' or '0')
end

while n <= #ARGV do
  local mark = ARGV[n]
  if mark == '=' then
    tenant, fixed = ARGV[n + 3], ARGV[n + 4]
    queue = queue_of(ARGV[n + 2], tenant)
    teach(ARGV[n + 1], ARGV[n + 2])
    ready_text = text_behind('PENDING_LIST')
    n = n + 5
  elseif mark == '@' then
    visible_at, n = tonumber(ARGV[n + 1]), n + 2
  elseif mark == '!' then
    key, n = ARGV[n + 1], n + 2
  elseif mark == '?' then
    attempt, n = ARGV[n + 1], n + 2
  else
    local id, earlier, place, unreadable = ARGV[n + 1], nil, nil, nil
    if key then earlier, place, unreadable = remembered(tenant, key) end
    if earlier then
      say('found', with_deadline(earlier, earlier.text))
    elseif unreadable then
      say('CORRUPT', unreadable)
    elseif texts[id] then
      say('ALREADY_EXISTS')
    elseif attempt and is_forbidden(attempt) then
      say('forbidden')
    else
      create(id, mark, ARGV[n + 2], place)
    end
    visible_at, key, attempt, n = 0, nil, nil, n + 3
  end
end
return answer(body)
