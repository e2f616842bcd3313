-- KEYS: inboxes. ARGV: id. Removes the entries of this message; gives how many.
local gone = 0
for _, inbox in ipairs(KEYS) do gone = gone + take_out(inbox, ARGV[1]) end
return gone
