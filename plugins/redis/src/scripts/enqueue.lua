-- For each item: id, the record's JSON before and after its state, command as spelled and in lower
-- case, tenant, priority, when it is visible, idempotency key.

-- The task that was enqueued with a key already; else nothing and where to remember the key.
-- codeQ's key of tenant `a`, key `b:c` is also that of tenant `a:b`, key `c`: the second to come
-- remembers its own in a key that only it can have. codeQ itself leaves the tenant out, so its keys are
-- read as well, but never written for a tenant: codeQ would answer another tenant with them.
local function remembered(tenant, key)
  local place
  local shared = 'codeq:idempo:' .. (tenant == '' and '' or tenant .. ':') .. key
  local names = { shared, 'codeq:x:idempo:' .. #tenant .. ':' .. tenant .. key }
  if tenant ~= '' then names[3] = 'codeq:idempo:' .. key end
  for number, name in ipairs(names) do
    local id = call('GET', name)
    local task, unreadable
    if id then task, unreadable = load(id) end
    -- A key without a tenant may be about another tenant's task.
    if unreadable and number < 3 then return nil, nil, id end
    if task and task.tenant == tenant then return task end
    if not task and number < 3 then place = place or name end
  end
  return nil, place
end

local body = {}
for n = FIRST, #ARGV, 9 do
  local id, before, after, command, lowered = ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3], ARGV[n + 4]
  local tenant, priority, visible_at, key = ARGV[n + 5], ARGV[n + 6], tonumber(ARGV[n + 7]), ARGV[n + 8]
  local earlier, place, unreadable
  if key ~= '' then earlier, place, unreadable = remembered(tenant, key) end
  if earlier then
    local deadline = earlier.status == 'IN_PROGRESS' and call('ZSCORE', home(earlier).deadlines, earlier.id)
    say(body, 'found', earlier.text, deadline and whole(tonumber(deadline)))
  elseif unreadable then
    say(body, 'CORRUPT', unreadable)
  elseif call('HEXISTS', TASKS, id) == 1 then
    say(body, 'ALREADY_EXISTS')
  else
    local queue = queue_of(lowered, tenant)
    teach(command, lowered)
    local delayed = visible_at > now
    local text = before .. ',"status":"PENDING","lastKnownLocation":"'
      .. (delayed and 'DELAYED_ZSET' or 'PENDING_LIST') .. '"' .. after
      .. ',"createdAt":' .. NOW_TEXT .. ',"updatedAt":' .. NOW_TEXT .. '}'
    -- The record comes last: nothing of a script is undone, and a place without a record is harmless.
    call('ZADD', RETENTION, seconds(max(visible_at, now) + KEPT_FOR), id)
    local awoke = false
    if delayed then
      call('ZADD', queue.delayed, seconds(visible_at), id)
      register(queue)
      alarm('due', queue, visible_at)
    else
      awoke = arrive(queue, { id = id, priority = priority })
    end
    call('HSET', TASKS, id, text)
    if place and REMEMBERED_FOR > 0 then call('SET', place, id, 'PX', whole(REMEMBERED_FOR)) end
    say(body, 'created', awoke and '1' or '0')
  end
end
return answer(body)
