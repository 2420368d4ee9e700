-- Where the last call ended. Looks at some of the known queues, which codeQ may have filled since, and
-- answers where to go on.

local part = call('HSCAN', QUEUES, ARGV[FIRST], 'COUNT', 100)
for n = 1, #part[2], 2 do
  local queue = queue_at(part[2][n])
  if queue then notice(queue) end
end
return answer({ part[1] })
