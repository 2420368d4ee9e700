-- Ids of records that were claimed and then turned out to be unreadable. The host reports them.

for n = FIRST, #ARGV do
  local task = load(ARGV[n])
  if task then quarantine(task.id, home(task)) end
end
corrupt = {}
return answer({})
