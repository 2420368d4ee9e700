-- A page of tasks. `queue`, command in lower case, tenant, place, cursor, limit: those in one place of
-- one queue; or `all`, cursor, limit: every task by when its retention ends, so what changes moves to
-- the end and is seen there. Answers the next cursor, and for each task its record, the place it was
-- found in, and when it becomes visible or its lease ends.

local body = { '' }

local function add(id, place, at)
  local task, unreadable = load(id)
  if unreadable then corrupt[#corrupt + 1] = id end
  if not task then return end
  local n = #body
  body[n + 1], body[n + 2], body[n + 3] = task.text, place, at and whole(at) or ''
end

local function visible_at(queue, id)
  local score = call('ZSCORE', queue.delayed, id)
  return score and floor(score * 1000 + 0.5)
end

-- Ids of a sorted set from behind `score`, `last` on.
local function sorted_page(key, score, last, limit)
  local from, ids, scores = score == '' and '-inf' or score, {}, {}
  local offset, left_out = 0, false
  while #ids < limit do
    local part = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', offset, limit)
    for n = 1, #part, 2 do
      local passed = score ~= '' and tonumber(part[n + 1]) == tonumber(score) and part[n] <= last
      if not passed and #ids < limit then
        ids[#ids + 1], scores[#scores + 1] = part[n], part[n + 1]
      elseif not passed then
        left_out = true
      end
    end
    offset = offset + limit
    if #part < 2 * limit then return ids, scores, not left_out end
  end
  return ids, scores, false
end

local function cursor(...)
  body[1] = cjson.encode({ ... })
end

if ARGV[FIRST] == 'all' then
  local at = ARGV[FIRST + 1] ~= '' and cjson.decode(ARGV[FIRST + 1]) or { '', '' }
  local ids, scores, last = sorted_page(RETENTION, at[1], at[2], tonumber(ARGV[FIRST + 2]))
  for _, id in ipairs(ids) do
    local text = call('HGET', TASKS, id)
    local task = text and parse(id, text)
    local moment
    if task and task.state.status == 'IN_PROGRESS' then
      moment = tonumber(call('ZSCORE', home(task).deadlines, id) or nil)
    elseif task and task.state.status == 'PENDING' and task.state.location == 'DELAYED_ZSET' then
      moment = visible_at(home(task), id)
    end
    add(id, '', moment)
  end
  if not last then cursor(scores[#scores], ids[#ids]) end
  return answer(body)
end

local queue, place = queue_of(ARGV[FIRST + 1], ARGV[FIRST + 2]), ARGV[FIRST + 3]
local at = ARGV[FIRST + 4] ~= '' and cjson.decode(ARGV[FIRST + 4]) or nil
local limit = tonumber(ARGV[FIRST + 5])

if place == 'DELAYED_ZSET' then
  local ids, scores, last = sorted_page(queue.delayed, at and at[1] or '', at and at[2] or '', limit)
  for n, id in ipairs(ids) do add(id, place, floor(scores[n] * 1000 + 0.5)) end
  if not last then cursor(scores[#scores], ids[#ids]) end
elseif place == 'PENDING_LIST' then
  -- Best first, as they are claimed. The cursor is a task; if that is gone, so are those before it.
  local priority, left, skip = at and tonumber(at[1]) or 9, limit, 0
  if at then
    local behind = call('LPOS', queue.pending .. priority, at[2], 'RANK', -1)
    skip = behind and call('LLEN', queue.pending .. priority) - behind or 0
  end
  while priority >= 0 and left > 0 do
    local list = queue.pending .. priority
    local ids = call('LRANGE', list, -(skip + left), -(skip + 1))
    for n = #ids, 1, -1 do add(ids[n], place) end
    left = left - #ids
    if left == 0 then cursor(tostring(priority), ids[1]) end
    priority, skip = priority - 1, 0
  end
else
  -- A scan may find more than it was asked for; what is too much waits in the cursor.
  local key = place == 'DLQ_SET' and dead_letters(queue) or queue.inprog
  local waiting, from = {}, '0'
  if at then
    from = table.remove(at, 1)
    waiting = at
  end
  local started = at ~= nil
  while #waiting < limit and not (started and from == '0') do
    local part = call('SSCAN', key, from, 'COUNT', limit)
    from, started = part[1], true
    for _, id in ipairs(part[2]) do waiting[#waiting + 1] = id end
  end
  for n = 1, min(limit, #waiting) do
    local id = waiting[n]
    local deadline = place == 'INPROG_SET' and call('ZSCORE', queue.deadlines, id)
    add(id, place, deadline and tonumber(deadline))
  end
  local rest = { from }
  for n = limit + 1, #waiting do rest[#rest + 1] = waiting[n] end
  if #rest > 1 or from ~= '0' then body[1] = cjson.encode(rest) end
end
return answer(body)
