-- For each item: command in lower case, tenant, group. The counter of codeQ knows no tenants.

local body, say = answers(1)
for n = FIRST, #ARGV, 3 do
  local command, tenant, group = ARGV[n], ARGV[n + 1], ARGV[n + 2]
  local key = SUBSCRIPTIONS .. ':rr:' .. command .. ':' .. group
  if tenant ~= '' or find(command .. group, ':', 1, true) then
    key = 'codeq:x:rr:' .. #command .. ':' .. #tenant .. ':' .. command .. tenant .. group
  end
  say('+', whole((call('INCR', key) - 1) % 2 ^ 53))
end
return answer(body)
