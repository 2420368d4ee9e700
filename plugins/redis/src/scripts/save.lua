-- For each item: id, the record, command as spelled and in lower case, tenant, priority, where it
-- belongs (`ready`, `delayed`, `leased`, `dead`, `done`), when that ends, the worker, and when its
-- retention ends.

local KNOWN = {}
for name in ([[id command payload priority webhook traceParent traceState status lastKnownLocation
    workerId leaseUntil attempts maxAttempts error resultKey tenantId createdAt updatedAt
    extensions]]):gmatch('%w+') do
  KNOWN[name] = true
end

local body, say = answers(1)
for n = FIRST, #ARGV, 10 do
  local id, text, command, lowered, tenant = ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3], ARGV[n + 4]
  local place, at, worker, until_then = ARGV[n + 6], tonumber(ARGV[n + 7]), ARGV[n + 8], ARGV[n + 9]
  local before = load(id)
  if before then
    withdraw(before, home(before))
    flush()
    local record, replaced = scan(text), scan(before.text)
    for m = 1, replaced.n do
      local name = replaced.names[m]
      if not KNOWN[name] and not record.at[name] then set(record, name, replaced.values[m]) end
    end
    text = text_with(record)
  end
  local queue = queue_of(lowered, tenant)
  register(queue)
  teach(command, lowered)
  call('HSET', TASKS, id, text)
  texts[id], tasks[id] = text, nil
  call('ZADD', RETENTION, seconds(tonumber(until_then)), id)
  call('HDEL', CORRUPT, id)
  if place == 'ready' then
    arrive(queue, id, ARGV[n + 5])
  elseif place == 'delayed' then
    call('ZADD', queue.delayed, seconds(at), id)
    alarm('due', queue, at)
  elseif place == 'leased' then
    call('SADD', queue.inprog, id)
    call('ZADD', queue.deadlines, whole(at), id)
    alarm('expiring', queue, at)
    if at > now then set_lease(id, worker, whole(at - now)) end
  elseif place == 'dead' then
    call('SADD', dead_letters(queue), id)
  end
  say('+')
end
return answer(body)
