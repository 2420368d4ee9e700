-- Which tenant; then `command` and the command in lower case, or `worker` and the worker. Answers the
-- records of those that have not expired.

local tenant, kind, name = ARGV[FIRST], ARGV[FIRST + 1], ARGV[FIRST + 2]
local body, seen = {}, {}

local function add(record)
  if not record or seen[record.id] or record.tenant ~= tenant or record.ends <= now then return end
  seen[record.id] = true
  body[#body + 1] = text_with(record)
end

if kind == 'command' then
  for _, command in ipairs({ name, '*' }) do
    for _, id in ipairs(listed_under(command)) do add(find_subscription(id)) end
  end
else
  for _, record in ipairs(every_subscription()) do
    if record.worker == name then add(record) end
  end
end
return answer(body)
